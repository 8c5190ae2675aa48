//! Attention of one new token per row against its cache slot.

use super::context::{Generic, Outcome};
use crate::{check::AttentionShape, kernels::attention::decode::places};
use candle_core::{D, Tensor};
use plugin_api::backend::{
    View,
    ops::{DecodeAttention, MaskKind},
};

/// Rows of a view.
fn rows(view: &View, from: usize, rows: usize) -> View {
    View { offset: view.offset + from as u64 * view.row_stride, rows: rows as u64, ..*view }
}

/// Appends each row's key and value to its slot, then attends over the slot.
pub fn attention(s: &mut Generic<'_>, op: &DecodeAttention) -> Outcome {
    let shape = AttentionShape::new(
        "decode_attention",
        op.heads,
        op.kv_heads,
        op.head_dim,
        op.scale,
        MaskKind::CAUSAL,
        op.window,
        op.softcap,
    )?;
    let (slots, lengths) = (s.ints(&op.slots)?, s.ints(&op.lengths)?);
    let capacity = places(op, &slots, &lengths)?;
    for (b, (slot, len)) in slots.iter().zip(&lengths).enumerate() {
        let (first, len) = (*slot as usize * capacity, *len as usize);
        let (k, v) = (s.input(&rows(&op.k, b, 1))?.copy()?, s.input(&rows(&op.v, b, 1))?.copy()?);
        s.output(&rows(&op.k_cache, first + len, 1), &k)?;
        s.output(&rows(&op.v_cache, first + len, 1), &v)?;
        let (from, to) = shape.visible(len, len + 1, 0);
        let seen = |view: &View| rows(view, first + from, to - from);
        let (k, v) = (s.input(&seen(&op.k_cache))?, s.input(&seen(&op.v_cache))?);
        let y = one_query(&shape, &s.input(&rows(&op.q, b, 1))?, &k, &v)?;
        s.output(&rows(&op.y, b, 1), &y)?;
    }
    Ok(())
}

/// `[1, heads * d]` against `[keys, kv_heads * d]`.
fn one_query(shape: &AttentionShape, q: &Tensor, k: &Tensor, v: &Tensor) -> candle_core::Result<Tensor> {
    let (kv, d, keys) = (shape.kv_heads, shape.head_dim, k.dim(0)?);
    let q = q.reshape((kv, shape.group(), d))?;
    let split = |x: &Tensor| x.reshape((keys, kv, d))?.permute((1, 0, 2))?.contiguous();
    let (k, v) = (split(k)?, split(v)?);
    let mut scores = (q.matmul(&k.t()?)? * f64::from(shape.scale))?;
    if shape.softcap > 0.0 {
        let cap = f64::from(shape.softcap);
        scores = ((scores / cap)?.tanh()? * cap)?;
    }
    let e = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    e.matmul(&v)?.broadcast_div(&e.sum_keepdim(D::Minus1)?)?.reshape((1, shape.heads * d))
}
