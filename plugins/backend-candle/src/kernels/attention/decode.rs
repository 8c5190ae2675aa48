//! Attention of one new token per row against its cache slot.

use super::forward::{PAD, one_query};
use crate::check::{self, AttentionShape};
use crate::kernels::{
    context::Kernels,
    primitives::{
        element::{Element, is_f32},
        operand::{Mat, MatMut},
    },
};
use plugin_api::{
    Error, Result,
    backend::ops::{DecodeAttention, MaskKind},
};

/// Appends each row's key and value to its slot, then attends over the slot.
pub fn attention<E: Element>(s: &mut Kernels<'_>, op: &DecodeAttention) -> Result<()> {
    let name = "decode_attention";
    let shape = AttentionShape::new(
        name,
        op.heads,
        op.kv_heads,
        op.head_dim,
        op.scale,
        MaskKind::CAUSAL,
        op.window,
        op.softcap,
    )?;
    let (q, k, v): (Mat<E>, Mat<E>, Mat<E>) = (s.input(&op.q)?, s.input(&op.k)?, s.input(&op.v)?);
    let (slots, lengths) = (s.ints(&op.slots)?, s.ints(&op.lengths)?);
    let capacity = places(op, slots, lengths)?;
    let y: MatMut<E> = s.output(&op.y)?;
    let (k_cache, v_cache): (MatMut<E>, MatMut<E>) = (s.output(&op.k_cache)?, s.output(&op.v_cache)?);
    let longest = lengths.iter().copied().max().unwrap_or(0) as usize + 1;
    let (par, d) = (&s.cx.par, shape.head_dim);
    let len = decode_scratch::<E>(d, longest);
    let tasks = q.rows * shape.kv_heads;
    let work = tasks * shape.group() * longest * d / 8;
    par.run_scratch(tasks, work, len, |task, scratch| {
        let (scores, sums) = scratch.split_at_mut(longest.next_multiple_of(PAD));
        let (b, kv) = (task / shape.kv_heads, task % shape.kv_heads);
        let (len, first) = (lengths[b] as usize, slots[b] as usize * capacity);
        let slot = |m: MatMut<E>| m.block(first, len + 1, kv * d, d);
        let (k_slot, v_slot) = (slot(k_cache), slot(v_cache));
        let (from, _) = shape.visible(len, len + 1, 0);
        par.wide(
            #[inline(always)]
            || {
                // SAFETY: slots are distinct, so only this task accesses these rows and columns of the caches.
                unsafe {
                    k_slot.row(len).copy_from_slice(k.span(b, kv * d, d));
                    v_slot.row(len).copy_from_slice(v.span(b, kv * d, d));
                }
                for head in kv * shape.group()..(kv + 1) * shape.group() {
                    // SAFETY: as above, for the head's columns of `q` and `y`.
                    let q = unsafe { q.span(b, head * d, d) };
                    let y = y.block(b, 1, head * d, d);
                    one_query(&shape, q, k_slot.as_mat(), v_slot.as_mat(), from, y, scores, sums);
                }
            },
        );
    });
    Ok(())
}

/// Floats of a task's scratch: the scores of `longest` keys, and for bf16 the result in f32.
pub fn decode_scratch<E: Element>(head_dim: usize, longest: usize) -> usize {
    longest.next_multiple_of(PAD) + if is_f32::<E>() { 0 } else { head_dim }
}

/// Rows of a slot, after checking slots and lengths.
///
/// # Errors
/// [`plugin_api::Code::INDEX`]; [`plugin_api::Code::INVALID_ARGUMENT`] for a slot given twice and for a capacity that is not
/// positive.
pub fn places(op: &DecodeAttention, slots: &[i32], lengths: &[i32]) -> Result<usize> {
    let name = "decode_attention";
    if op.capacity < 1 && op.q.rows > 0 {
        return Err(Error::invalid(format!("{name}: capacity {} is not positive", op.capacity)));
    }
    let capacity = op.capacity.max(1) as usize;
    check::indices(name, "slots", slots, op.k_cache.rows as usize / capacity)?;
    check::indices(name, "lengths", lengths, capacity)?;
    for (b, slot) in slots.iter().enumerate() {
        if slots[..b].contains(slot) {
            return Err(Error::invalid(format!("{name}: slot {slot} is given twice")));
        }
    }
    Ok(capacity)
}
