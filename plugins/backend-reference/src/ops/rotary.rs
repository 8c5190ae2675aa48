//! Rotary position embedding; the backward is the rotation by the negative angle.

use crate::{
    Reference,
    session::{require, require_shape},
};
use plugin_api::{Result, backend::ops};

/// Rotates each head's pairs by the angle of the token's position.
pub fn rotate(s: &mut Reference, op: &ops::Rotary) -> Result<()> {
    let mut x = s.read(&op.x)?;
    let (cos, sin) = (s.read(&op.cos)?, s.read(&op.sin)?);
    let pairs = cos.cols;
    require(op.head_dim > 0, "rotary", || format!("head_dim {} is not positive", op.head_dim))?;
    let head_dim = op.head_dim as usize;
    require_shape(x.cols.is_multiple_of(head_dim) && 2 * pairs <= head_dim, "rotary", || {
        format!("head_dim {head_dim} must divide {} columns and hold {pairs} pairs", x.cols)
    })?;
    let positions = s.indices("rotary", "positions", &op.positions, cos.rows)?;
    for (n, &position) in positions.iter().enumerate() {
        for head in x.row_mut(n).chunks_exact_mut(head_dim) {
            for i in 0..pairs {
                let (a, b) = if op.interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
                let c = cos.row(position)[i];
                let s = if op.inverse { -sin.row(position)[i] } else { sin.row(position)[i] };
                (head[a], head[b]) = (head[a] * c - head[b] * s, head[b] * c + head[a] * s);
            }
        }
    }
    s.write(&op.y, &x)
}
