//! Attention of packed sequences by libtorch's variable-length flash kernels on CUDA: bf16, causal or bidirectional, with
//! or without a window, grouped heads as they are.

use super::attention::Plan;
use crate::{
    TorchSession,
    fault::Attempt,
    shim::{self, PackedPlan},
    storage::row_stride,
};
use plugin_api::backend::{
    View,
    ops::{Attention, AttentionBackward, MaskKind},
};
use tch::{Kind, Tensor};

/// Widths of a head that the kernels know: multiples of this ...
const WIDTH: i64 = 8;
/// ... up to this.
const WIDEST: i64 = 256;

/// Whether these kernels do what the plan asks for, in the type of `q`.
pub fn serves(s: &TorchSession, plan: &Plan, kind: Kind) -> bool {
    let width = plan.head_dim % WIDTH == 0 && plan.head_dim <= WIDEST;
    !s.on_cpu() && kind == Kind::BFloat16 && width && plan.softcap <= 0.0 && plan.mask != MaskKind::PREFIX
}

/// A query- or key-like operand as `[tokens, heads, head_dim]`.
fn heads(s: &TorchSession, view: &View, heads: i64, head_dim: i64) -> Attempt<Tensor> {
    let rows = row_stride(view)?;
    s.shaped(view, &[view.rows as i64, heads, head_dim], &[rows, head_dim, 1], 0)
}

/// What both directions hand to the kernels; the sequences' bounds on the device.
fn packed(s: &TorchSession, plan: &Plan, offsets: &View) -> Attempt<(Tensor, PackedPlan)> {
    let bounds = s.index_unchecked(offsets)?.f_to_kind(Kind::Int)?;
    let longest = plan.sequences.iter().map(|(tokens, _)| tokens.end - tokens.start).max().unwrap_or(0);
    let causal = plan.mask == MaskKind::CAUSAL;
    Ok((bounds, PackedPlan { longest, causal, window: plan.window, scale: plan.scale }))
}

/// `y` and `lse` of every sequence.
pub fn forward(s: &TorchSession, op: &Attention, plan: &Plan) -> Attempt {
    if plan.sequences.is_empty() {
        return Ok(());
    }
    let (bounds, packed) = packed(s, plan, &op.offsets)?;
    let (wide, d) = (plan.heads(), plan.head_dim);
    let (y, lse) = shim::packed_attention(
        &heads(s, &op.q, wide, d)?,
        &heads(s, &op.k, plan.kv_heads, d)?,
        &heads(s, &op.v, plan.kv_heads, d)?,
        &bounds,
        packed,
    )?;
    heads(s, &op.y, wide, d)?.f_copy_(&y)?;
    if let Some(view) = &op.lse {
        s.at(view)?.f_copy_(&lse.f_tr()?)?;
    }
    Ok(())
}

/// `dq`, `dk` and `dv` of every sequence.
pub fn backward(s: &TorchSession, op: &AttentionBackward, plan: &Plan) -> Attempt {
    if plan.sequences.is_empty() {
        return Ok(());
    }
    let (bounds, packed) = packed(s, plan, &op.offsets)?;
    let (wide, d) = (plan.heads(), plan.head_dim);
    let keys = |view: &View| heads(s, view, plan.kv_heads, d);
    let (dq, dk, dv) = shim::packed_attention_backward(
        [
            &heads(s, &op.dy, wide, d)?,
            &heads(s, &op.q, wide, d)?,
            &keys(&op.k)?,
            &keys(&op.v)?,
            &heads(s, &op.y, wide, d)?,
        ],
        &s.at(&op.lse)?.f_tr()?.f_contiguous()?,
        &bounds,
        packed,
    )?;
    heads(s, &op.dq, wide, d)?.f_copy_(&dq)?;
    keys(&op.dk)?.f_copy_(&dk)?;
    Ok(keys(&op.dv)?.f_copy_(&dv)?)
}
