//! Attention of new tokens against their cache slots, appending in place.

use super::attention::{cap_, check_heads};
use crate::{
    TorchSession,
    fault::{Attempt, Done, require},
    storage::{accumulator, row_stride, size, to},
};
use plugin_api::{
    Error,
    backend::{View, ops::DecodeAttention},
};
use std::{collections::BTreeSet, ops::Range};
use tch::Tensor;

/// Stores each row's key and value, then attends over its slot.
pub fn attention(s: &mut TorchSession, op: &DecodeAttention) -> Attempt {
    check_heads("decode_attention", op.heads, op.kv_heads, op.head_dim, op.window)?;
    let places = places(s, op)?;
    let rows = s.upload_indices(&places.iter().map(|keys| keys.end - 1).collect::<Vec<_>>())?;
    s.at(&op.k_cache)?.f_index_copy_(0, &rows, &s.at(&op.k)?).done()?;
    s.at(&op.v_cache)?.f_index_copy_(0, &rows, &s.at(&op.v)?).done()?;
    for (b, keys) in places.iter().enumerate() {
        attend(s, op, b as i64, keys)?;
    }
    Ok(())
}

/// Per row: the cache rows it sees, its own new one the last.
fn places(s: &TorchSession, op: &DecodeAttention) -> Attempt<Vec<Range<i64>>> {
    let name = "decode_attention";
    require(op.capacity > 0 || op.q.rows == 0, name, || format!("capacity {} is not positive", op.capacity))?;
    let capacity = op.capacity.max(1);
    let slots = s.indices(name, "slots", &op.slots, op.k_cache.rows / capacity as u64)?;
    let lengths = s.indices(name, "lengths", &op.lengths, capacity as u64)?;
    let mut taken = BTreeSet::new();
    if let Some(slot) = slots.iter().find(|slot| !taken.insert(**slot)) {
        return Err(Error::invalid(format!("{name}: slot {slot} is given twice")).into());
    }
    let place = |(slot, length): (&i64, &i64)| {
        let end = slot * capacity + length + 1;
        end - if op.window > 0 { op.window.min(length + 1) } else { length + 1 }..end
    };
    Ok(slots.iter().zip(&lengths).map(place).collect())
}

/// One row's query over its keys: every key it is given is visible, so there is nothing to mask, and rows of the cache
/// beyond it are never read.
fn attend(s: &TorchSession, op: &DecodeAttention, b: i64, keys: &Range<i64>) -> Attempt {
    let (kv_heads, group, d) = (op.kv_heads, op.heads / op.kv_heads, op.head_dim);
    let query = |view: &View| s.shaped(view, &[kv_heads, group, d], &[group * d, d, 1], b * size(view.row_stride)?);
    let cached = |view: &View| {
        let rows = row_stride(view)?;
        s.shaped(view, &[kv_heads, keys.end - keys.start, d], &[d, rows, 1], keys.start * rows)
    };
    let (q, k, v, mut y) = (query(&op.q)?, cached(&op.k_cache)?, cached(&op.v_cache)?, query(&op.y)?);
    if s.on_cpu() && op.softcap <= 0.0 {
        // The group's queries stand where the kernel expects positions.
        let batch = |t: &Tensor| t.f_unsqueeze(0);
        let (out, _) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu(
            &batch(&q)?,
            &batch(&k)?,
            &batch(&v)?,
            0.0,
            false,
            None::<Tensor>,
            op.scale,
        )?;
        return Ok(y.f_copy_(&out.f_squeeze_dim(0)?)?);
    }
    let acc = accumulator(q.f_kind()?);
    let mut scores = to(&q, acc)?.f_bmm(&to(&k, acc)?.f_transpose(1, 2)?)?.f_mul_scalar_(op.scale)?;
    cap_(&mut scores, op.softcap)?;
    let p = scores.f_softmax(-1, None)?;
    Ok(y.f_copy_(&p.f_bmm(&to(&v, acc)?)?)?)
}
