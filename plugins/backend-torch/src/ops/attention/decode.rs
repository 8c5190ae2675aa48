//! Attention of new tokens over their cache slots, extended in place.

use super::plan::{cap_, check_heads};
use crate::{
    TorchSession,
    fault::{Attempt, Done, require},
    storage::{accumulator, row_stride, to},
};
use plugin_api::{
    Error,
    backend::{View, ops::DecodeAttention},
};
use std::{collections::BTreeSet, ops::Range};
use tch::{Kind, Tensor};

/// Stores each row's key and value in its slot, then attends over the slot.
pub fn attention(s: &mut TorchSession, op: &DecodeAttention) -> Attempt {
    check_heads("decode_attention", op.heads, op.kv_heads, op.head_dim, op.window)?;
    let places = places(s, op)?;
    let rows = s.upload_indices(&places.iter().map(|keys| keys.end - 1).collect::<Vec<_>>())?;
    s.at(&op.k_cache)?.f_index_copy_(0, &rows, &s.at(&op.k)?).done()?;
    s.at(&op.v_cache)?.f_index_copy_(0, &rows, &s.at(&op.v)?).done()?;
    if places.is_empty() { Ok(()) } else { attend(s, op, &places) }
}

/// Per row: the cache rows it sees; its own new one is the last.
fn places(s: &TorchSession, op: &DecodeAttention) -> Attempt<Vec<Range<i64>>> {
    let name = "decode_attention";
    require(op.capacity > 0 || op.q.rows == 0, name, || format!("capacity {} is not positive", op.capacity))?;
    let capacity = op.capacity.max(1);
    let slots = s.indices(name, "slots", &op.slots, op.k_cache.rows / capacity as u64)?;
    let lengths = s.indices(name, "lengths", &op.lengths, capacity as u64)?;
    let mut used = BTreeSet::new();
    if let Some(slot) = slots.iter().find(|slot| !used.insert(**slot)) {
        return Err(Error::invalid(format!("{name}: slot {slot} is given twice")).into());
    }
    let place = |(slot, length): (&i64, &i64)| {
        let end = slot * capacity + length + 1;
        end - if op.window > 0 { op.window.min(length + 1) } else { length + 1 }..end
    };
    Ok(slots.iter().zip(&lengths).map(place).collect())
}

/// Every row's query over its keys, all rows in one product: keys and values are gathered up to the longest row's length;
/// positions beyond a row's own are filled with its last key and hidden. Rows of the cache that no row sees are never read.
fn attend(s: &TorchSession, op: &DecodeAttention, places: &[Range<i64>]) -> Attempt {
    let (rows, kv_heads, d) = (places.len() as i64, op.kv_heads, op.head_dim);
    let group = op.heads / kv_heads;
    let longest = places.iter().map(|keys| keys.end - keys.start).max().unwrap_or(0);
    let padded = |keys: &Range<i64>| {
        let last = keys.end - 1;
        (keys.start..keys.start + longest).map(move |key| key.min(last)).collect::<Vec<_>>()
    };
    let index = s.upload_indices(&places.iter().flat_map(padded).collect::<Vec<_>>())?;
    let gathered = |cache: &View| -> Attempt<Tensor> {
        let table = s.at(cache)?.f_index_select(0, &index)?;
        Ok(table.f_view([rows, longest, kv_heads, d])?.f_transpose(1, 2)?)
    };
    let query = |view: &View| {
        let stride = row_stride(view)?;
        s.shaped(view, &[rows, kv_heads, group, d], &[stride, group * d, d, 1], 0)
    };
    let (q, k, v, mut y) = (query(&op.q)?, gathered(&op.k_cache)?, gathered(&op.v_cache)?, query(&op.y)?);
    let hidden = hidden(s, places, longest)?;
    if s.on_cpu() && op.softcap <= 0.0 {
        let mask = match hidden {
            Some(hidden) => {
                let zeros = Tensor::f_zeros([rows, 1, 1, longest], (q.f_kind()?, s.device()))?;
                Some(zeros.f_masked_fill(&hidden, f64::NEG_INFINITY)?.f_expand([rows, 1, group, longest], false)?)
            }
            None => None,
        };
        // The group's queries take the dimension in which the kernel expects positions.
        let (out, _) =
            Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu(&q, &k, &v, 0.0, false, mask, op.scale)?;
        return Ok(y.f_copy_(&out)?);
    }
    let acc = accumulator(q.f_kind()?);
    let mut scores = to(&q, acc)?.f_matmul(&to(&k, acc)?.f_transpose(2, 3)?)?.f_mul_scalar_(op.scale)?;
    cap_(&mut scores, op.softcap)?;
    if let Some(hidden) = hidden {
        scores.f_masked_fill_(&hidden, f64::NEG_INFINITY).done()?;
    }
    let p = scores.f_softmax(-1, None)?;
    Ok(y.f_copy_(&p.f_matmul(&to(&v, acc)?)?)?)
}

/// `[rows, 1, 1, longest]`, true beyond each row's own keys; `None` if all rows have equally many.
fn hidden(s: &TorchSession, places: &[Range<i64>], longest: i64) -> Attempt<Option<Tensor>> {
    let lengths: Vec<i64> = places.iter().map(|keys| keys.end - keys.start).collect();
    if lengths.iter().all(|length| *length == longest) {
        return Ok(None);
    }
    let lengths = s.upload_indices(&lengths)?.f_view([-1, 1, 1, 1])?;
    let place = Tensor::f_arange(longest, (Kind::Int64, s.device()))?;
    Ok(Some(place.f_ge_tensor(&lengths)?))
}
