//! Attention of packed sequences by libtorch's variable-length flash kernels on CUDA: bf16, causal or bidirectional, with or
//! without a window, with grouped heads.
//!
//! The kernels read 16 bytes at a time: every row of every head must start at a multiple of 16 bytes, and a head's width must be a
//! multiple of 8. Any other operand is copied first, and a narrower head is padded with zeros, which change no product.

use super::plan::Plan;
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

/// The kernels support head widths that are multiples of this, the number of bf16 elements they read at a time ...
const WIDTH: i64 = 8;
/// ... up to this.
const WIDEST: i64 = 256;

/// Whether these kernels support the plan, for the type of `q`.
pub fn serves(s: &TorchSession, plan: &Plan, kind: Kind) -> bool {
    let width = plan.head_dim <= WIDEST;
    !s.on_cpu() && kind == Kind::BFloat16 && width && plan.softcap <= 0.0 && plan.mask != MaskKind::PREFIX
}

/// A query- or key-like operand as `[tokens, heads, head_dim]`.
fn heads(s: &TorchSession, view: &View, heads: i64, head_dim: i64) -> Attempt<Tensor> {
    let rows = row_stride(view)?;
    s.shaped(view, &[view.rows as i64, heads, head_dim], &[rows, head_dim, 1], 0)
}

/// The same for a kernel to read: in place if possible, else a copy.
fn readable(s: &TorchSession, view: &View, wide: i64, head_dim: i64) -> Attempt<Tensor> {
    aligned(heads(s, view, wide, head_dim)?)
}

/// `x` of `[tokens, heads, width]` if each row of a head starts at a multiple of 16 bytes and has a multiple of 8 elements; else a
/// copy for which this holds, with zeros behind a width that is not a multiple of 8.
fn aligned(x: Tensor) -> Attempt<Tensor> {
    let width = x.size()[2];
    let lies_well = |x: &Tensor| {
        let bytes = (WIDTH as usize) * std::mem::size_of::<u16>();
        let rows = x.stride().iter().take(2).all(|stride| stride % WIDTH == 0);
        rows && (x.data_ptr() as usize).is_multiple_of(bytes)
    };
    match (WIDTH - width % WIDTH) % WIDTH {
        0 if lies_well(&x) => Ok(x),
        0 => {
            let mut copy = Tensor::f_empty(x.size(), (x.f_kind()?, x.device()))?;
            copy.f_copy_(&x)?;
            Ok(copy)
        }
        missing => Ok(x.f_constant_pad_nd([0, missing])?.f_contiguous()?),
    }
}

/// Arguments of the kernels in both directions, with the sequences' bounds on the device.
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
        &readable(s, &op.q, wide, d)?,
        &readable(s, &op.k, plan.kv_heads, d)?,
        &readable(s, &op.v, plan.kv_heads, d)?,
        &bounds,
        packed,
    )?;
    heads(s, &op.y, wide, d)?.f_copy_(&y.f_narrow(2, 0, d)?)?;
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
    let keys = |view: &View| readable(s, view, plan.kv_heads, d);
    let (dq, dk, dv) = shim::packed_attention_backward(
        [
            &readable(s, &op.dy, wide, d)?,
            &readable(s, &op.q, wide, d)?,
            &keys(&op.k)?,
            &keys(&op.v)?,
            &readable(s, &op.y, wide, d)?,
        ],
        &s.at(&op.lse)?.f_tr()?.f_contiguous()?,
        &bounds,
        packed,
    )?;
    for (view, heads_of, found) in [(&op.dq, wide, dq), (&op.dk, plan.kv_heads, dk), (&op.dv, plan.kv_heads, dv)] {
        heads(s, view, heads_of, d)?.f_copy_(&found.f_narrow(2, 0, d)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_are_aligned(x: &Tensor) -> bool {
        let strides = x.stride();
        (x.data_ptr() as usize).is_multiple_of(16) && strides[0] % 8 == 0 && strides[1] % 8 == 0 && strides[2] == 1
    }

    /// Catches a view that is passed on although its rows do not start at multiples of 16 bytes (by its offset, or by its stride),
    /// an unnecessary copy, and a width that is padded with anything but zeros.
    #[test]
    fn kernels_get_rows_aligned_to_sixteen_bytes() {
        let memory = Tensor::arange(4096, (Kind::Float, tch::Device::Cpu)).to_kind(Kind::BFloat16);
        // Offset, distance between rows, heads, width, whether it can be used in place.
        for (offset, rows, heads, width, stays) in [
            (0, 32, 2, 16, true),
            (8, 40, 2, 16, true),
            (1, 32, 2, 16, false),
            (8, 33, 2, 16, false),
            (0, 36, 2, 16, false),
            (0, 40, 3, 12, false),
            (3, 41, 1, 5, false),
        ] {
            let x = memory.as_strided([5, heads, width], [rows, width, 1], offset);
            let found = aligned(x.shallow_clone()).unwrap();
            let at = format!("offset {offset}, rows {rows}, width {width}");
            assert!(rows_are_aligned(&found), "{at}");
            assert_eq!(found.data_ptr() == x.data_ptr(), stays, "{at}");
            assert!(found.narrow(2, 0, width).equal(&x), "{at}");
            let filled = found.size()[2] - width;
            assert_eq!((width + filled) % 8, 0, "{at}");
            assert_eq!(found.narrow(2, width, filled).abs().sum(Kind::Float).double_value(&[]), 0.0, "{at}");
        }
    }
}
