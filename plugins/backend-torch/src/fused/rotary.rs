//! Rotary position embedding.

use super::{
    BLOCK, Rows, blocks_of,
    launch::{Grid, Kernel, Source},
    params::Rotary,
    small, wide,
};
use crate::{TorchSession, fault::Attempt};
use plugin_api::backend::ops;
use tch::Tensor;

/// Rotates each head's pairs by the angles of the positions, which the caller has checked, as the shapes. Returns whether it did.
pub fn rotate(s: &TorchSession, op: &ops::Rotary, positions: &Tensor) -> Attempt<bool> {
    let Some(kernels) = s.kernels() else { return Ok(false) };
    let (x, y) = (Rows::of(s, &op.x)?, Rows::of(s, &op.y)?);
    let (cos, sin) = (Rows::of(s, &op.cos)?, Rows::of(s, &op.sin)?);
    let (dtype, pairs, head_dim) = (op.x.dtype, op.cos.cols, op.head_dim.unsigned_abs());
    let heads = op.x.cols / head_dim.max(1);
    let pack = wide(dtype);
    // A pack of halves holds one side of its pairs; one of adjacent pairs both.
    let packed = if op.interleaved { 2 * pairs } else { pairs };
    let aligned = x.aligned && y.aligned && packed.is_multiple_of(pack) && head_dim.is_multiple_of(pack);
    let (rotating, rest) = (if aligned { packed / pack } else { pairs }, head_dim - 2 * pairs);
    let copying = match op.x == op.y {
        true => 0,
        false if aligned => rest / pack,
        false => rest,
    };
    let units_per_head = rotating + copying;
    let params = Rotary {
        x: x.address,
        y: y.address,
        positions: positions.data_ptr() as usize,
        cos: cos.address,
        sin: sin.address,
        x_stride: x.stride,
        y_stride: y.stride,
        cos_stride: cos.stride,
        sin_stride: sin.stride,
        units: op.x.rows * heads * units_per_head,
        units_per_head,
        rotating,
        heads: small(heads, "rotary")?,
        head_dim: small(head_dim, "rotary")?,
        pairs: small(pairs, "rotary")?,
        interleaved: i32::from(op.interleaved),
        inverse: i32::from(op.inverse),
        wide: i32::from(aligned),
    };
    let grid = Grid { blocks: blocks_of(params.units), threads: BLOCK };
    // SAFETY: the operands are views that the session has checked; the caller has checked that `head_dim` divides their columns and
    // holds the pairs, and that the positions, one per row of `x`, lie in the tables. A thread reads its elements before it writes
    // them.
    unsafe { kernels.launch(Kernel(Source::Rotary, "rotary"), dtype, grid, &params)? };
    Ok(true)
}
