//! RMS and layer norm with the residual add.

use super::context::{Generic, Outcome};
use candle_core::Tensor;
use plugin_api::backend::{
    View,
    ops::{Norm, NormBackward, NormKind},
};

plugin_api::operations! {
    NormOps for Generic<'_>:
    norm Norm => forward,
    norm_backward NormBackward => backward,
}

fn is_layer(kind: NormKind, op: &str) -> Outcome<bool> {
    match kind {
        NormKind::RMS => Ok(false),
        NormKind::LAYER => Ok(true),
        other => Err(other.unknown(op).into()),
    }
}

/// The gain; 1 if there is none.
fn gain(s: &Generic<'_>, weight: &Option<View>, offset: f64) -> Outcome<Option<Tensor>> {
    Ok(s.input_opt(weight)?.map(|w| w.affine(1.0, offset)).transpose()?)
}

/// Means of the rows.
fn mean(x: &Tensor) -> candle_core::Result<Tensor> {
    x.sum_keepdim(1)?.affine(1.0 / x.dim(1)?.max(1) as f64, 0.0)
}

/// `s = x + residual; y = norm(s) gain + bias`.
pub fn forward(s: &mut Generic<'_>, op: &Norm) -> Outcome {
    let layer = is_layer(op.kind, "norm")?;
    if op.x.rows == 0 {
        return Ok(());
    }
    let x = s.input(&op.x)?;
    let sum = match s.input_opt(&op.residual)? {
        Some(residual) => (x + residual)?,
        None => x.copy()?,
    };
    let centre = if layer { mean(&sum)? } else { Tensor::zeros_like(&mean(&sum)?)? };
    let centred = sum.broadcast_sub(&centre)?;
    let rstd = mean(&centred.sqr()?)?.affine(1.0, op.eps)?.sqrt()?.recip()?;
    let mut y = centred.broadcast_mul(&rstd)?;
    if let Some(gain) = gain(s, &op.weight, op.weight_offset)? {
        y = y.broadcast_mul(&gain)?;
    }
    if let Some(bias) = s.input_opt(&op.bias)? {
        y = y.broadcast_add(&bias)?;
    }
    s.output(&op.y, &y)?;
    s.output_opt(&op.sum, &sum)?;
    s.output_opt(&op.stats, &Tensor::cat(&[centre, rstd], 1)?)
}

/// `dx = rstd (g - [mean g] - xhat mean(g xhat)) + dsum`, `dweight += sum dy xhat`, `dbias += sum dy`.
pub fn backward(s: &mut Generic<'_>, op: &NormBackward) -> Outcome {
    let layer = is_layer(op.kind, "norm_backward")?;
    if op.x.is_empty() {
        return Ok(());
    }
    let (x, stats, dy) = (s.input(&op.x)?, s.input(&op.stats)?, s.input(&op.dy)?);
    let rstd = stats.narrow(1, 1, 1)?;
    let xhat = x.broadcast_sub(&stats.narrow(1, 0, 1)?)?.broadcast_mul(&rstd)?;
    let g = match gain(s, &op.weight, op.weight_offset)? {
        Some(gain) => dy.broadcast_mul(&gain)?,
        None => dy.clone(),
    };
    let along = mean(&(&g * &xhat)?)?;
    let mut dx = (&g - xhat.broadcast_mul(&along)?)?;
    if layer {
        dx = dx.broadcast_sub(&mean(&g)?)?;
    }
    dx = dx.broadcast_mul(&rstd)?;
    if let Some(dsum) = s.input_opt(&op.dsum)? {
        dx = (dx + dsum)?;
    }
    let (dweight, dbias) = ((&dy * xhat)?.sum_keepdim(0)?, dy.sum_keepdim(0)?);
    s.output(&op.dx, &dx)?;
    if let Some(view) = &op.dweight {
        s.add(view, &dweight)?;
    }
    match &op.dbias {
        Some(view) => s.add(view, &dbias),
        None => Ok(()),
    }
}
