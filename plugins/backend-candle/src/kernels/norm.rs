//! RMS and layer norm with the residual add, forward and backward.

use super::linear::add_column_sums;
use crate::kernels::{
    context::{Kernels, kernels},
    primitives::{
        element::{Element, load_row, store_row},
        math::sum,
        operand::{Mat, MatMut},
        parallel::grow,
    },
};
use plugin_api::{
    Result,
    backend::ops::{Norm, NormBackward, NormKind},
};

kernels! {
    NormOps:
    norm Norm [x] => forward,
    norm_backward NormBackward [x] => backward,
}

/// Rows per task; the gain's partial gradients are one row per task.
fn group(rows: usize) -> usize {
    rows.div_ceil(64).max(16)
}

/// Writes `offset + weight` (1 if there is no weight), then the bias (0 if there is none).
fn fill_gain<E: Element>(out: &mut [f32], width: usize, weight: Option<Mat<E>>, offset: f32, bias: Option<Mat<E>>) {
    let (gain, shift) = out[..2 * width].split_at_mut(width);
    match weight {
        Some(weight) => {
            // SAFETY: a checked view of one row, only read.
            let weight = unsafe { weight.row(0) };
            gain.iter_mut().zip(weight).for_each(|(g, w)| *g = offset + w.load());
        }
        None => gain.fill(1.0),
    }
    match bias {
        // SAFETY: as above.
        Some(bias) => load_row(shift, unsafe { bias.row(0) }),
        None => shift.fill(0.0),
    }
}

fn is_layer(kind: NormKind, op: &str) -> Result<bool> {
    match kind {
        NormKind::RMS => Ok(false),
        NormKind::LAYER => Ok(true),
        other => Err(other.unknown(op)),
    }
}

/// `s = x + residual; y = norm(s) gain + bias`.
pub fn forward<E: Element>(s: &mut Kernels<'_>, op: &Norm) -> Result<()> {
    let layer = is_layer(op.kind, "norm")?;
    let (x, residual): (Mat<E>, Option<Mat<E>>) = (s.input(&op.x)?, s.input_opt(&op.residual)?);
    let (weight, bias): (Option<Mat<E>>, Option<Mat<E>>) = (s.input_opt(&op.weight)?, s.input_opt(&op.bias)?);
    let (y, total): (MatMut<E>, Option<MatMut<E>>) = (s.output(&op.y)?, s.output_opt(&op.sum)?);
    let stats: Option<MatMut> = s.output_opt(&op.stats)?;
    let width = x.cols;
    grow(&mut s.cx.partials, 2 * width);
    fill_gain(&mut s.cx.partials, width, weight, op.weight_offset as f32, bias);
    let (gain, shift) = s.cx.partials[..2 * width].split_at(width);
    let (eps, par) = (op.eps as f32, &s.cx.par);
    let group = group(x.rows);
    par.run_scratch(x.rows.div_ceil(group), x.rows * width * 6 / 10, width, |task, scratch| {
        for n in task * group..x.rows.min((task + 1) * group) {
            par.wide(
                #[inline(always)]
                || {
                    let row = add_residual(n, x, residual, total, scratch);
                    let (mean, rstd) = statistics(row, layer, eps);
                    // SAFETY: rows are disjoint; `y` overlaps nothing.
                    let y = unsafe { y.row(n) };
                    for (((y, x), g), b) in y.iter_mut().zip(row).zip(gain).zip(shift) {
                        *y = E::store(((x - mean) * rstd).mul_add(*g, *b));
                    }
                    if let Some(stats) = stats {
                        // SAFETY: as above.
                        unsafe { stats.row(n) }.copy_from_slice(&[mean, rstd]);
                    }
                },
            );
        }
    });
    Ok(())
}

/// The row to normalise, written to `total` if that is given. A sum is rounded to the stored type in either case: the backward
/// reads it from there.
#[inline(always)]
fn add_residual<E: Element>(
    n: usize,
    x: Mat<E>,
    residual: Option<Mat<E>>,
    total: Option<MatMut<E>>,
    scratch: &mut [f32],
) -> &[f32] {
    // SAFETY: checked views; the output, which may be `x` or the residual, is written after both are read.
    unsafe {
        match residual {
            Some(residual) => {
                for ((sum, x), residual) in scratch.iter_mut().zip(x.row(n)).zip(residual.row(n)) {
                    *sum = E::store(x.load() + residual.load()).load();
                }
            }
            None => load_row(scratch, x.row(n)),
        }
        if let Some(total) = total {
            store_row(total.row(n), scratch);
        }
    }
    scratch
}

/// Mean (0 for RMS) and reciprocal standard deviation.
#[inline(always)]
fn statistics(row: &[f32], layer: bool, eps: f32) -> (f32, f32) {
    let width = row.len().max(1) as f32;
    let mean = if layer { sum([row], |[x]| x) / width } else { 0.0 };
    let variance = sum([row], |[x]| (x - mean) * (x - mean)) / width;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// With `xhat = (x - mean) rstd` and `g = dy gain`: `dx = rstd (g - [mean g] - xhat mean(g xhat)) + dsum`, the bracket in
/// layer norm only; `dweight += sum dy xhat`, `dbias += sum dy`.
pub fn backward<E: Element>(s: &mut Kernels<'_>, op: &NormBackward) -> Result<()> {
    let layer = is_layer(op.kind, "norm_backward")?;
    let (x, stats, dy): (Mat<E>, Mat, Mat<E>) = (s.input(&op.x)?, s.input(&op.stats)?, s.input(&op.dy)?);
    let (weight, dsum): (Option<Mat<E>>, Option<Mat<E>>) = (s.input_opt(&op.weight)?, s.input_opt(&op.dsum)?);
    let dx: MatMut<E> = s.output(&op.dx)?;
    let (dweight, dbias): (Option<MatMut>, Option<MatMut>) = (s.output_opt(&op.dweight)?, s.output_opt(&op.dbias)?);
    let (width, group) = (x.cols, group(x.rows));
    let tasks = x.rows.div_ceil(group);
    let len = 2 * width * (1 + tasks);
    grow(&mut s.cx.partials, len);
    let (gain, partials) = s.cx.partials[..len].split_at_mut(2 * width);
    fill_gain(gain, width, weight, op.weight_offset as f32, None);
    let gain = &gain[..width];
    let partials = MatMut::over(partials, tasks, 2 * width);
    let par = &s.cx.par;
    par.run_scratch(tasks, x.rows * width, 2 * width, |task, scratch| {
        // SAFETY: each task has its own row of partials.
        let (gains, shifts) = unsafe { partials.row(task) }.split_at_mut(width);
        gains.fill(0.0);
        shifts.fill(0.0);
        let (dys, xs) = scratch.split_at_mut(width);
        for n in task * group..x.rows.min((task + 1) * group) {
            par.wide(
                #[inline(always)]
                || {
                    // SAFETY: checked views; the row of `dy` is copied before `dx`, which may be it, is written.
                    let (x, stats) = unsafe {
                        load_row(dys, dy.row(n));
                        (E::floats(x.row(n), xs), stats.row(n))
                    };
                    let (mean, rstd) = (stats[0], stats[1]);
                    partial_row(gains, shifts, x, dys, mean, rstd);
                    let (along, level) = projections(x, dys, gain, mean, rstd, layer);
                    let dx = start_row(dx, dsum, n);
                    for (((dx, x), dy), g) in dx.iter_mut().zip(x).zip(&*dys).zip(gain) {
                        *dx = E::store(dx.load() + rstd * (dy * g - level - (x - mean) * rstd * along));
                    }
                },
            );
        }
    });
    // SAFETY: the partials are written and no task is left; the gradients overlap nothing.
    unsafe {
        if let Some(dweight) = dweight {
            add_column_sums(par, dweight, partials.as_mat().block(0, tasks, 0, width));
        }
        if let Some(dbias) = dbias {
            add_column_sums(par, dbias, partials.as_mat().block(0, tasks, width, width));
        }
    }
    Ok(())
}

#[inline(always)]
fn partial_row(gains: &mut [f32], shifts: &mut [f32], x: &[f32], dy: &[f32], mean: f32, rstd: f32) {
    for (((gain, shift), x), dy) in gains.iter_mut().zip(shifts).zip(x).zip(dy) {
        *gain += dy * ((x - mean) * rstd);
        *shift += dy;
    }
}

/// `(mean(g xhat), mean(g) or 0)`.
#[inline(always)]
fn projections(x: &[f32], dy: &[f32], gain: &[f32], mean: f32, rstd: f32, layer: bool) -> (f32, f32) {
    let width = x.len().max(1) as f32;
    let along = sum([x, dy, gain], |[x, dy, g]| dy * g * ((x - mean) * rstd)) / width;
    let level = if layer { sum([dy, gain], |[dy, g]| dy * g) / width } else { 0.0 };
    (along, level)
}

/// The row of `dx`, filled with `dsum` or 0.
#[inline(always)]
fn start_row<'a, E: Element>(dx: MatMut<E>, dsum: Option<Mat<E>>, n: usize) -> &'a mut [E] {
    // SAFETY: rows are disjoint; `dsum` is either this same matrix, and is not read, or does not overlap it.
    let row = unsafe { dx.row(n) };
    match dsum {
        None => row.fill(E::store(0.0)),
        Some(dsum) if dx.is(&dsum) => {}
        // SAFETY: as above.
        Some(dsum) => row.copy_from_slice(unsafe { dsum.row(n) }),
    }
    row
}
