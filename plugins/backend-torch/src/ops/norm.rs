//! Residual add with RMS or layer norm, and the backward. Statistics are taken in f32 or better.

use crate::{
    TorchSession,
    fault::{Attempt, Done},
    ops::linear::add_column_sums,
    storage::{accumulator, to},
};
use plugin_api::backend::{
    View,
    ops::{Norm, NormBackward, NormKind},
};
use tch::{Kind, Tensor};

/// `s = x + residual; y = norm(s) gain + bias`.
pub fn forward(s: &mut TorchSession, op: &Norm) -> Attempt {
    let is_layer = is_layer(op.kind, "norm")?;
    let sum = residual_sum(s, op)?;
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
    if let Some(stats) = s.at_opt(&op.stats)? {
        match &mean {
            Some(mean) => stats.f_narrow(1, 0, 1)?.f_copy_(mean)?,
            None => stats.f_narrow(1, 0, 1)?.f_zero_().done()?,
        }
        stats.f_narrow(1, 1, 1)?.f_copy_(&rstd)?;
    }
    Ok(())
}

/// `x + residual`, in the `sum` operand where that is given.
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
/// `dx = rstd (g - [mean(g)] - xhat mean(g xhat)) + dsum`, the bracket in layer norm alone.
pub fn backward(s: &mut TorchSession, op: &NormBackward) -> Attempt {
    let is_layer = is_layer(op.kind, "norm_backward")?;
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

/// What multiplies a column: the stored gain and its offset.
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
