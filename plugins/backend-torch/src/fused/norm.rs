//! Residual add with RMS or layer norm, and the backward.

use super::{
    Rows,
    launch::{Grid, Kernel, Kernels, Source},
    params::{ColumnSums, NormBackward, NormForward},
    small, wide,
};
use crate::{TorchSession, fault::Attempt, storage};
use plugin_api::backend::{
    DType, View,
    ops::{self, NormKind},
};
use tch::Tensor;

/// Columns that a thread keeps in registers, at most.
const COLUMNS: u64 = 32;
/// Threads of a block, at most.
const THREADS: u64 = 256;
/// Blocks of the backward, at most: each leaves one row of sums for weight and bias.
const BACKWARD_BLOCKS: u64 = 1024;

/// How a row is divided among the threads of a block.
struct Division {
    kernel: &'static str,
    threads: u32,
}

/// The kernel for rows of `cols`, of `[narrow, wide]` whose rows are aligned and of the same whose rows are not; `None` if a row is
/// too long.
fn division(cols: u64, dtype: DType, aligned: bool, names: [[&'static str; 2]; 2]) -> Option<Division> {
    let pack = wide(dtype);
    let aligned = aligned && cols.is_multiple_of(pack);
    let (pack, least, names) = if aligned { (pack, pack, names[0]) } else { (1, 4, names[1]) };
    let threads = |per_thread: u64| cols.div_ceil(per_thread).max(1).next_multiple_of(32);
    let few = threads(if aligned { pack } else { 1 });
    if cols <= THREADS * least {
        return Some(Division { kernel: names[0], threads: few.min(THREADS) as u32 });
    }
    (cols <= THREADS * COLUMNS).then_some(Division { kernel: names[1], threads: THREADS as u32 })
}

fn is_layer(kind: NormKind) -> Option<i32> {
    match kind {
        NormKind::RMS => Some(0),
        NormKind::LAYER => Some(1),
        _ => None,
    }
}

/// `y`, the sum and the statistics in one pass. Returns whether it computed them.
pub fn forward(s: &TorchSession, op: &ops::Norm) -> Attempt<bool> {
    let (Some(kernels), Some(layer)) = (s.kernels(), is_layer(op.kind)) else { return Ok(false) };
    let of = |view: &View| Rows::of(s, view);
    let (x, y) = (of(&op.x)?, of(&op.y)?);
    let [residual, weight, bias, sum, stats] =
        [&op.residual, &op.weight, &op.bias, &op.sum, &op.stats].map(|view| Rows::optional(s, view));
    let (residual, weight, bias, sum, stats) = (residual?, weight?, bias?, sum?, stats?);
    let aligned = [x, y, residual, weight, bias, sum].iter().all(|rows| rows.aligned);
    let names = [["norm_narrow", "norm_wide"], ["norm_narrow_single", "norm_wide_single"]];
    let Some(division) = division(op.x.cols, op.x.dtype, aligned, names) else { return Ok(false) };
    let params = NormForward {
        x: x.address,
        residual: residual.address,
        weight: weight.address,
        bias: bias.address,
        y: y.address,
        sum: sum.address,
        stats: stats.address,
        x_stride: x.stride,
        residual_stride: residual.stride,
        y_stride: y.stride,
        sum_stride: sum.stride,
        stats_stride: stats.stride,
        eps: op.eps,
        offset: op.weight_offset,
        cols: small(op.x.cols, "norm")?,
        layer,
    };
    let grid = Grid { blocks: op.x.rows, threads: division.threads };
    // SAFETY: the operands are views that the session has checked, of the shapes that the catalogue demands; a block computes one of
    // `x.rows` rows, and its threads read and write columns below `x.cols` of operands with that many.
    unsafe { kernels.launch(Kernel(Source::Norm, division.kernel), op.x.dtype, grid, &params)? };
    Ok(true)
}

/// `dx` and the gradients of gain and bias. Returns whether it computed them.
pub fn backward(s: &TorchSession, op: &ops::NormBackward) -> Attempt<bool> {
    let (Some(kernels), Some(layer)) = (s.kernels(), is_layer(op.kind)) else { return Ok(false) };
    let of = |view: &View| Rows::of(s, view);
    let (x, dy, stats, dx) = (of(&op.x)?, of(&op.dy)?, of(&op.stats)?, of(&op.dx)?);
    let (weight, dsum) = (Rows::optional(s, &op.weight)?, Rows::optional(s, &op.dsum)?);
    let aligned = [x, dy, dx, weight, dsum].iter().all(|rows| rows.aligned);
    let names =
        [["norm_backward_narrow", "norm_backward_wide"], ["norm_backward_narrow_single", "norm_backward_wide_single"]];
    let (rows, cols) = (op.x.rows, op.x.cols);
    let Some(division) = division(cols, op.x.dtype, aligned, names) else { return Ok(false) };
    // The division of the rows depends on their number alone, and so does the order of the sums.
    let rows_per_block = rows.div_ceil(BACKWARD_BLOCKS).max(1);
    let blocks = rows.div_ceil(rows_per_block);
    let wanted = op.dweight.is_some() || op.dbias.is_some();
    let parts = if wanted { Some(scratch(s, 2 * blocks * cols, op.x.dtype)?) } else { None };
    let params = NormBackward {
        x: x.address,
        stats: stats.address,
        dy: dy.address,
        weight: weight.address,
        dsum: dsum.address,
        dx: dx.address,
        parts: parts.as_ref().map_or(0, address),
        x_stride: x.stride,
        stats_stride: stats.stride,
        dy_stride: dy.stride,
        dsum_stride: dsum.stride,
        dx_stride: dx.stride,
        offset: op.weight_offset,
        rows: storage::size(rows)?,
        rows_per_block: storage::size(rows_per_block)?,
        cols: small(cols, "norm_backward")?,
        layer,
    };
    let grid = Grid { blocks, threads: division.threads };
    // SAFETY: as in `forward`; `parts` holds two rows of `cols` per block.
    unsafe { kernels.launch(Kernel(Source::Norm, division.kernel), op.x.dtype, grid, &params)? };
    let Some(parts) = &parts else { return Ok(true) };
    for (at, gradient) in [&op.dweight, &op.dbias].into_iter().enumerate() {
        if let Some(gradient) = gradient {
            let size = accumulator_size(op.x.dtype);
            let from = address(parts) + at * (blocks * cols) as usize * size;
            add_columns(kernels, op.x.dtype, (from, blocks, cols), s.address(gradient)?)?;
        }
    }
    Ok(true)
}

/// Adds the sums of the columns of `[count, cols]` numbers at `from`, of the accumulator of `dtype`, to those at `to`.
fn add_columns(kernels: &Kernels, dtype: DType, (from, count, cols): (usize, u64, u64), to: usize) -> Attempt {
    let params =
        ColumnSums { parts: from, to, count: small(count, "norm_backward")?, cols: small(cols, "norm_backward")? };
    let grid = Grid { blocks: if count == 0 { 0 } else { cols.div_ceil(32) }, threads: 512 };
    // SAFETY: the scratch memory holds `count` rows of `cols` from there on, and the gradient is a checked view of one such row.
    unsafe { kernels.launch(Kernel(Source::Norm, "column_sums"), dtype, grid, &params) }
}

/// Bytes of the accumulator of `dtype`.
fn accumulator_size(dtype: DType) -> usize {
    if dtype == DType::F64 { 8 } else { 4 }
}

/// Memory for `count` accumulators of `dtype`; libtorch reuses it after the kernels that were launched before it was freed.
fn scratch(s: &TorchSession, count: u64, dtype: DType) -> Attempt<Tensor> {
    let kind = if dtype == DType::F64 { tch::Kind::Double } else { tch::Kind::Float };
    Ok(Tensor::f_empty([storage::size(count)?], (kind, s.device()))?)
}

fn address(tensor: &Tensor) -> usize {
    tensor.data_ptr() as usize
}
