//! The global norm, and AdamW that reads norm and rates on the device: nothing is copied to the host.

use super::{
    BLOCK, Rows, blocks_of,
    launch::{Grid, Kernel, Source},
    params::{AdamW, NormParts, NormTotal},
    small,
};
use crate::{TorchSession, fault::Attempt, storage};
use plugin_api::backend::{DType, View, ops};
use tch::{Kind, Tensor};

/// Elements of which a block sums the squares, at least; a multiple of every pack.
const PIECE: u64 = 4096;
/// Blocks of the first stage, at most.
const PARTS: u64 = 2048;

/// The norm and the finite flag. Returns whether it computed them.
pub fn global_norm(s: &TorchSession, op: &ops::GlobalNorm) -> Attempt<bool> {
    let Some(kernels) = s.kernels() else { return Ok(false) };
    let (x, count, dtype) = (Rows::of(s, &op.x)?, op.x.cols, op.x.dtype);
    // The division depends on the number of elements alone, and so does the order of the sum.
    let per_block = count.div_ceil(PARTS).max(1).next_multiple_of(PIECE);
    let blocks = count.div_ceil(per_block);
    let parts = Tensor::f_empty([storage::size(blocks)?], (Kind::Double, s.device()))?;
    let at = parts.data_ptr() as usize;
    let first = NormParts { x: x.address, parts: at, count, per_block, wide: i32::from(x.aligned) };
    let grid = Grid { blocks, threads: BLOCK };
    // SAFETY: `x` is a checked view of `count` elements, and `parts` has one number per block.
    unsafe { kernels.launch(Kernel(Source::Optimizer, "norm_parts"), dtype, grid, &first)? };
    let second = NormTotal { parts: at, norm: s.address(&op.norm)?, count: blocks };
    // SAFETY: `parts` has `blocks` numbers, and `norm` is a checked view of two.
    unsafe {
        kernels.launch(Kernel(Source::Optimizer, "norm_total"), dtype, Grid { blocks: 1, threads: BLOCK }, &second)?
    };
    Ok(true)
}

/// One AdamW step; `bounds` are the checked ends of the segments on the device. Returns whether it did it.
pub fn adamw(s: &TorchSession, op: &ops::AdamW, bounds: &Tensor) -> Attempt<bool> {
    let Some(kernels) = s.kernels() else { return Ok(false) };
    let of = |view: &View| Rows::of(s, view);
    let (params, grads, m, v) = (of(&op.params)?, of(&op.grads)?, of(&op.m)?, of(&op.v)?);
    let (hyper, shadow) = (of(&op.hyper)?, Rows::optional(s, &op.shadow)?);
    if ![params, grads, m, v, shadow].iter().all(|rows| rows.aligned) {
        return Ok(false);
    }
    let storage = match op.shadow.map(|view| view.dtype) {
        Some(DType::BF16) => 1,
        Some(DType::F64) => 2,
        _ => 0,
    };
    let (step, dtype) = (op.step as f64, op.params.dtype);
    let step = AdamW {
        params: params.address,
        grads: grads.address,
        m: m.address,
        v: v.address,
        norm: s.address(&op.norm)?,
        bounds: bounds.data_ptr() as usize,
        hyper: hyper.address,
        shadow: shadow.address,
        hyper_stride: hyper.stride,
        rest1: 1.0 - op.beta1,
        beta2: op.beta2,
        rest2: 1.0 - op.beta2,
        eps: op.eps,
        clip: op.clip,
        correction1: 1.0 - op.beta1.powf(step),
        root2: (1.0 - op.beta2.powf(step)).sqrt(),
        count: op.params.cols,
        segments: small(op.hyper.rows, "adamw")?,
        shadow_storage: storage,
    };
    let grid = Grid { blocks: blocks_of(op.params.cols / super::wide(dtype)), threads: BLOCK };
    // SAFETY: the flat buffers are checked views of one length, a multiple of every pack (the caller has checked it), `norm` has two
    // numbers, `hyper` two per segment, and `bounds` one more than there are segments, ascending from 0 to the length.
    unsafe { kernels.launch(Kernel(Source::Optimizer, "adamw"), dtype, grid, &step)? };
    Ok(true)
}
