//! Rotary position embedding; the backward is the rotation by the negative angle.

use crate::{
    TorchSession,
    fault::{Attempt, require, require_shape},
    fused,
    storage::{row_stride, size},
};
use plugin_api::backend::{View, ops};

/// Rotates each head's pairs by the angle of the token's position.
pub fn rotate(s: &mut TorchSession, op: &ops::Rotary) -> Attempt {
    require(op.head_dim > 0, "rotary", || format!("head_dim {} is not positive", op.head_dim))?;
    let (tokens, width, pairs) = (size(op.x.rows)?, size(op.x.cols)?, size(op.cos.cols)?);
    let head_dim = op.head_dim;
    require_shape(width % head_dim == 0 && pairs <= head_dim / 2, "rotary", || {
        format!("head_dim {head_dim} must divide {width} columns and hold {pairs} pairs")
    })?;
    let positions = s.index("rotary", "positions", &op.positions, op.cos.rows)?;
    if fused::rotary::rotate(s, op, &positions)? {
        return Ok(());
    }
    let angles =
        |table: &View| Ok::<_, crate::fault::Fault>(s.at(table)?.f_index_select(0, &positions)?.f_unsqueeze(1)?);
    let cos = angles(&op.cos)?;
    let sin = if op.inverse { angles(&op.sin)?.f_neg_()? } else { angles(&op.sin)? };
    // Each half of the pairs as [tokens, heads, pairs].
    let heads = width / head_dim;
    let (distance, second) = if op.interleaved { (2, 1) } else { (1, pairs) };
    let part = |view: &View, first: i64, count: i64, distance: i64| {
        s.shaped(view, &[tokens, heads, count], &[row_stride(view)?, head_dim, distance], first)
    };
    let (a, b) = (part(&op.x, 0, pairs, distance)?, part(&op.x, second, pairs, distance)?);
    let first = a.f_mul(&cos)?.f_sub_(&b.f_mul(&sin)?)?;
    let other = b.f_mul(&cos)?.f_addcmul_(&a, &sin)?;
    part(&op.y, 0, pairs, distance)?.f_copy_(&first)?;
    part(&op.y, second, pairs, distance)?.f_copy_(&other)?;
    let rest = head_dim - 2 * pairs;
    if rest > 0 && op.x != op.y {
        part(&op.y, 2 * pairs, rest, 1)?.f_copy_(&part(&op.x, 2 * pairs, rest, 1)?)?;
    }
    Ok(())
}
