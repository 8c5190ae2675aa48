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

/// Where a step's rows lie in the cache: the same for all layers.
struct Places {
    rows: i64,
    /// Cached positions that the row which sees the most sees, its new one among them.
    longest: i64,
    /// The cache row of each new key and value.
    new: Tensor,
    /// The cache rows that each row sees, `[rows longest]`; beyond a row's own, its last one is repeated.
    seen: Tensor,
    /// `[rows, 1, 1, longest]`, true where it is repeated; `None` if all rows see equally many.
    hidden: Option<Tensor>,
}

impl Places {
    fn of(s: &TorchSession, op: &DecodeAttention) -> Attempt<Places> {
        let ranges = ranges(s, op)?;
        let longest = ranges.iter().map(|keys| keys.end - keys.start).max().unwrap_or(0);
        let padded = |keys: &Range<i64>| {
            let last = keys.end - 1;
            (keys.start..keys.start + longest).map(move |key| key.min(last)).collect::<Vec<_>>()
        };
        Ok(Places {
            rows: ranges.len() as i64,
            longest,
            new: s.upload_indices(&ranges.iter().map(|keys| keys.end - 1).collect::<Vec<_>>())?,
            seen: s.upload_indices(&ranges.iter().flat_map(padded).collect::<Vec<_>>())?,
            hidden: hidden(s, &ranges, longest)?,
        })
    }
}

/// Stores each row's key and value in its slot, then attends over the slot.
pub fn attention(s: &mut TorchSession, op: &DecodeAttention) -> Attempt {
    check_heads("decode_attention", op.heads, op.kv_heads, op.head_dim, op.window)?;
    let attributes = vec![op.capacity, op.window, op.k_cache.rows as i64, op.q.rows as i64];
    let key = s.derivation("decode_attention", &[&op.slots, &op.lengths], attributes)?;
    let places = match s.take_derived(&key) {
        Some(places) => places,
        None => Places::of(s, op)?,
    };
    s.at(&op.k_cache)?.f_index_copy_(0, &places.new, &s.at(&op.k)?).done()?;
    s.at(&op.v_cache)?.f_index_copy_(0, &places.new, &s.at(&op.v)?).done()?;
    if places.rows > 0 {
        attend(s, op, &places)?;
    }
    s.keep_derived(key, places);
    Ok(())
}

/// Per row: the cache rows it sees; its own new one is the last.
fn ranges(s: &TorchSession, op: &DecodeAttention) -> Attempt<Vec<Range<i64>>> {
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

/// Every row's query over its keys, all rows in one product. Rows of the cache that no row sees are never read.
fn attend(s: &TorchSession, op: &DecodeAttention, places: &Places) -> Attempt {
    let Places { rows, longest, seen, hidden, .. } = places;
    let (rows, longest, kv_heads, d) = (*rows, *longest, op.kv_heads, op.head_dim);
    let group = op.heads / kv_heads;
    let gathered = |cache: &View| -> Attempt<Tensor> {
        let table = s.at(cache)?.f_index_select(0, seen)?;
        Ok(table.f_view([rows, longest, kv_heads, d])?.f_transpose(1, 2)?)
    };
    let query = |view: &View| {
        let stride = row_stride(view)?;
        s.shaped(view, &[rows, kv_heads, group, d], &[stride, group * d, d, 1], 0)
    };
    let (q, k, v, mut y) = (query(&op.q)?, gathered(&op.k_cache)?, gathered(&op.v_cache)?, query(&op.y)?);
    if s.on_cpu() && op.softcap <= 0.0 {
        let mask = match hidden {
            Some(hidden) => {
                let zeros = Tensor::f_zeros([rows, 1, 1, longest], (q.f_kind()?, s.device()))?;
                Some(zeros.f_masked_fill(hidden, f64::NEG_INFINITY)?.f_expand([rows, 1, group, longest], false)?)
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
        scores.f_masked_fill_(hidden, f64::NEG_INFINITY).done()?;
    }
    let p = scores.f_softmax(-1, None)?;
    Ok(y.f_copy_(&p.f_matmul(&to(&v, acc)?)?)?)
}

/// `[rows, 1, 1, longest]`, true beyond each row's own keys; `None` if all rows have equally many.
fn hidden(s: &TorchSession, ranges: &[Range<i64>], longest: i64) -> Attempt<Option<Tensor>> {
    let lengths: Vec<i64> = ranges.iter().map(|keys| keys.end - keys.start).collect();
    if lengths.iter().all(|length| *length == longest) {
        return Ok(None);
    }
    let lengths = s.upload_indices(&lengths)?.f_view([-1, 1, 1, 1])?;
    let place = Tensor::f_arange(longest, (Kind::Int64, s.device()))?;
    Ok(Some(place.f_ge_tensor(&lengths)?))
}
