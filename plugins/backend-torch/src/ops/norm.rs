//! Residual add with RMS or layer norm, and the backward. Statistics are computed in f32 or better.

use crate::{
    TorchSession,
    fault::{Attempt, Done},
    fused::norm as kernels,
    ops::linear::add_column_sums,
    shim,
    storage::{accumulator, to},
};
use plugin_api::backend::{
    View,
    ops::{Norm, NormBackward, NormKind},
};
use tch::{Kind, Tensor};

plugin_api::operations! {
    NormOps for TorchSession:
    norm Norm => forward,
    norm_backward NormBackward => backward,
}

/// `s = x + residual; y = norm(s) gain + bias`.
pub fn forward(s: &mut TorchSession, op: &Norm) -> Attempt {
    let is_layer = is_layer(op.kind, "norm")?;
    if kernels::forward(s, op)? {
        return Ok(());
    }
    let sum = residual_sum(s, op)?;
    if fused_serves(s, op.weight_offset, &op.x) {
        return fused(s, op, is_layer, &sum);
    }
    let acc = accumulator(sum.f_kind()?);
    let wide = to(&sum, acc)?;
    let mean = if is_layer { Some(wide.f_mean_dim([1i64].as_slice(), true, None)?) } else { None };
    let centred = match &mean {
        Some(mean) => wide.f_sub(mean)?,
        None => wide,
    };
    let width = op.x.cols.max(1) as f64;
    let rstd = centred.f_norm_scalaropt_dim(2, [1i64].as_slice(), true)?;
    let rstd = rstd.f_square()?.f_div_scalar(width)?.f_add_scalar(op.eps)?.f_rsqrt()?;
    let mut out = s.at(&op.y)?;
    let mut y = if out.f_kind()? == acc { centred.f_mul_out(&out, &rstd)? } else { centred.f_mul(&rstd)? };
    if let Some(gain) = gain(s, &op.weight, op.weight_offset, acc)? {
        y.f_mul_(&gain).done()?;
    }
    if let Some(bias) = s.at_opt(&op.bias)? {
        y.f_add_(&to(&bias, acc)?).done()?;
    }
    if out.f_kind()? != acc {
        out.f_copy_(&y)?;
    }
    write_stats(s, &op.stats, mean.as_ref(), &rstd)
}

/// Whether ATen's fused kernels are used: on a device, where every pass over memory counts, without an offset, and for rows that
/// are wide enough that nothing cancels in them.
fn fused_serves(s: &TorchSession, offset: f64, x: &View) -> bool {
    !s.on_cpu() && offset == 0.0 && x.rows > 0 && x.cols >= 32
}

/// `y` and the statistics from the sum, in one kernel.
fn fused(s: &TorchSession, op: &Norm, is_layer: bool, sum: &Tensor) -> Attempt {
    let (width, weight, bias) = ([sum.size()[1]], row(s, &op.weight)?, row(s, &op.bias)?);
    let (y, mean, rstd) = if is_layer {
        let (y, mean, rstd) = sum.f_native_layer_norm(width, weight, bias, op.eps)?;
        (y, Some(mean), rstd)
    } else {
        let (mut y, rstd) = sum.f_internal_fused_rms_norm(width, weight, op.eps)?;
        if let Some(bias) = bias {
            y.f_add_(&bias).done()?;
        }
        (y, None, rstd)
    };
    s.at(&op.y)?.f_copy_(&y)?;
    write_stats(s, &op.stats, mean.as_ref(), &rstd)
}

/// A vector operand, dense, for the fused kernels.
fn row(s: &TorchSession, view: &Option<View>) -> Attempt<Option<Tensor>> {
    Ok(match s.at_opt(view)? {
        Some(row) => Some(row.f_flatten(0, -1)?.f_contiguous()?),
        None => None,
    })
}

/// `(mean, 1 / standard deviation)` per row; RMS norm has no mean.
fn write_stats(s: &TorchSession, stats: &Option<View>, mean: Option<&Tensor>, rstd: &Tensor) -> Attempt {
    let Some(stats) = s.at_opt(stats)? else { return Ok(()) };
    match mean {
        Some(mean) => stats.f_narrow(1, 0, 1)?.f_copy_(mean)?,
        None => stats.f_narrow(1, 0, 1)?.f_zero_().done()?,
    }
    Ok(stats.f_narrow(1, 1, 1)?.f_copy_(rstd)?)
}

/// `x + residual`, in the `sum` operand if that is given.
fn residual_sum(s: &TorchSession, op: &Norm) -> Attempt<Tensor> {
    let x = s.at(&op.x)?;
    Ok(match (s.at_opt(&op.residual)?, s.at_opt(&op.sum)?) {
        (Some(residual), Some(sum)) => x.f_add_out(&sum, &residual)?,
        (Some(residual), None) => x.f_add(&residual)?,
        (None, Some(mut sum)) => {
            sum.f_copy_(&x)?;
            sum
        }
        (None, None) => x,
    })
}

/// With `xhat = (x - mean) rstd` and `g = dy gain`:
/// `dx = rstd (g - [mean(g)] - xhat mean(g xhat)) + dsum`, the bracket in layer norm only.
pub fn backward(s: &mut TorchSession, op: &NormBackward) -> Attempt {
    let is_layer = is_layer(op.kind, "norm_backward")?;
    if kernels::backward(s, op)? {
        return Ok(());
    }
    let (x, stats, dy) = (s.at(&op.x)?, s.at(&op.stats)?, s.at(&op.dy)?);
    let acc = accumulator(x.f_kind()?);
    let (dy, rstd) = (to(&dy, acc)?, stats.f_narrow(1, 1, 1)?);
    let xhat = if is_layer {
        to(&x, acc)?.f_sub(&stats.f_narrow(1, 0, 1)?)?.f_mul_(&rstd)?
    } else {
        to(&x, acc)?.f_mul(&rstd)?
    };
    if let Some(mut dweight) = s.at_opt(&op.dweight)? {
        add_column_sums(&mut dweight, &dy.f_mul(&xhat)?)?;
    }
    if let Some(mut dbias) = s.at_opt(&op.dbias)? {
        add_column_sums(&mut dbias, &dy)?;
    }
    if fused_serves(s, op.weight_offset, &op.x) {
        return fused_backward(s, op, is_layer);
    }
    let g = match gain(s, &op.weight, op.weight_offset, acc)? {
        Some(gain) => dy.f_mul(&gain)?,
        None => dy,
    };
    let width = op.x.cols.max(1) as f64;
    let row_sum = |t: &Tensor| t.f_sum_dim_intlist([1i64].as_slice(), true, None);
    let along = row_sum(&g.f_mul(&xhat)?)?.f_div_scalar_(-width)?;
    let mut dx = g.f_addcmul(&xhat, &along)?;
    if is_layer {
        dx.f_sub_(&row_sum(&g)?.f_div_scalar_(width)?).done()?;
    }
    dx.f_mul_(&rstd).done()?;
    if let Some(dsum) = s.at_opt(&op.dsum)? {
        dx.f_add_(&dsum).done()?;
    }
    Ok(s.at(&op.dx)?.f_copy_(&dx)?)
}

/// `dx` in one kernel. The cotangents of gain and bias are not taken from it, because it would round them to the compute type.
fn fused_backward(s: &TorchSession, op: &NormBackward, is_layer: bool) -> Attempt {
    let stats = s.at(&op.stats)?;
    let column = |at: i64| stats.f_narrow(1, at, 1)?.f_contiguous();
    let mean = if is_layer { Some(column(0)?) } else { None };
    let weight = row(s, &op.weight)?;
    let (dy, x) = (s.at(&op.dy)?, s.at(&op.x)?);
    let mut dx = shim::norm_backward(&dy, &x, mean.as_ref(), &column(1)?, weight.as_ref())?;
    if let Some(dsum) = s.at_opt(&op.dsum)? {
        dx.f_add_(&dsum).done()?;
    }
    Ok(s.at(&op.dx)?.f_copy_(&dx)?)
}

/// The factor of a column: the stored gain plus its offset.
fn gain(s: &TorchSession, weight: &Option<View>, offset: f64, kind: Kind) -> Attempt<Option<Tensor>> {
    let Some(weight) = s.at_opt(weight)? else { return Ok(None) };
    let gain = to(&weight, kind)?;
    Ok(Some(if offset == 0.0 { gain } else { gain.f_add_scalar(offset)? }))
}

fn is_layer(kind: NormKind, op: &str) -> Attempt<bool> {
    match kind {
        NormKind::RMS => Ok(false),
        NormKind::LAYER => Ok(true),
        other => Err(other.unknown(op).into()),
    }
}
