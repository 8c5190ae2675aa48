//! Attention of new tokens over their cache slots, extended in place.

use super::attention::{cap, check_heads, softmax};
use crate::{
    Reference,
    matrix::{Matrix, axpy, dot},
    session::require,
};
use plugin_api::{Code, Error, Result, backend::ops::DecodeAttention};

/// Stores each row's key and value in its slot, then attends over the slot.
pub fn attention(s: &mut Reference, op: &DecodeAttention) -> Result<()> {
    check_heads("decode_attention", op.heads, op.kv_heads, op.head_dim, op.window)?;
    let (q, k, v) = (s.read(&op.q)?, s.read(&op.k)?, s.read(&op.v)?);
    let (mut k_cache, mut v_cache) = (s.read(&op.k_cache)?, s.read(&op.v_cache)?);
    let places = places(s, op, k_cache.rows)?;
    let (head_dim, group) = (op.head_dim as usize, (op.heads / op.kv_heads) as usize);
    let mut y = Matrix::zeros(q.rows, q.cols);
    for (b, &(first, length)) in places.iter().enumerate() {
        k_cache.row_mut(first + length).copy_from_slice(k.row(b));
        v_cache.row_mut(first + length).copy_from_slice(v.row(b));
        let window = if op.window > 0 { op.window as usize } else { length + 1 };
        let keys = first + (length + 1).saturating_sub(window)..first + length + 1;
        for h in 0..op.heads as usize {
            let columns = h * head_dim..(h + 1) * head_dim;
            let kv_columns = h / group * head_dim..(h / group + 1) * head_dim;
            let query = &q.row(b)[columns.clone()];
            let score = |j: usize| cap(op.scale * dot(query, &k_cache.row(j)[kv_columns.clone()]), op.softcap);
            let mut p: Vec<f64> = keys.clone().map(score).collect();
            softmax(&mut p);
            for (j, &p) in keys.clone().zip(&p) {
                axpy(&mut y.row_mut(b)[columns.clone()], p, &v_cache.row(j)[kv_columns.clone()]);
            }
        }
    }
    s.write(&op.y, &y)?;
    s.write(&op.k_cache, &k_cache)?;
    s.write(&op.v_cache, &v_cache)
}

/// Per row: the first cache row of its slot, and how many rows are filled.
fn places(s: &Reference, op: &DecodeAttention, cache_rows: usize) -> Result<Vec<(usize, usize)>> {
    let name = "decode_attention";
    require(op.capacity > 0 || op.q.rows == 0, name, || format!("capacity {} is not positive", op.capacity))?;
    let capacity = op.capacity.max(1) as usize;
    let slots = s.indices(name, "slots", &op.slots, cache_rows / capacity)?;
    let lengths = s.indices(name, "lengths", &op.lengths, capacity)?;
    for (b, slot) in slots.iter().enumerate() {
        if slots[..b].contains(slot) {
            return Err(Error::new(Code::INVALID_ARGUMENT, format!("{name}: slot {slot} is given twice")));
        }
    }
    Ok(slots.iter().map(|slot| slot * capacity).zip(lengths).collect())
}
