//! Residual add with RMS or layer norm, and the backward.

use crate::{
    Reference,
    matrix::{Matrix, dot},
};
use plugin_api::{
    Result,
    backend::ops::{Norm, NormBackward, NormKind},
};

plugin_api::operations! {
    NormOps for Reference:
    norm Norm => forward,
    norm_backward NormBackward => backward,
}

/// The factor of column `d`: the stored gain plus its offset, or 1 if there is no gain.
fn gain(weight: &Option<Matrix>, offset: f64, d: usize) -> f64 {
    weight.as_ref().map_or(1.0, |w| offset + w.data[d])
}

/// `s = x + residual; y = norm(s) gain + bias`.
pub fn forward(session: &mut Reference, op: &Norm) -> Result<()> {
    let is_layer = is_layer(op.kind, "norm")?;
    let mut sum = session.read(&op.x)?;
    if let Some(residual) = session.read_opt(&op.residual)? {
        crate::matrix::axpy(&mut sum.data, 1.0, &residual.data);
    }
    let weight = session.read_opt(&op.weight)?;
    let bias = session.read_opt(&op.bias)?;
    let mut y = Matrix::zeros(sum.rows, sum.cols);
    let mut stats = Matrix::zeros(sum.rows, 2);
    let width = sum.cols.max(1) as f64;
    for n in 0..sum.rows {
        let row = sum.row(n);
        let mean = if is_layer { row.iter().sum::<f64>() / width } else { 0.0 };
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width;
        let rstd = 1.0 / (variance + op.eps).sqrt();
        for (d, (y, x)) in y.row_mut(n).iter_mut().zip(row).enumerate() {
            let shift = bias.as_ref().map_or(0.0, |b| b.data[d]);
            *y = (x - mean) * rstd * gain(&weight, op.weight_offset, d) + shift;
        }
        stats.row_mut(n).copy_from_slice(&[mean, rstd]);
    }
    session.write(&op.y, &y)?;
    session.write_opt(&op.sum, &sum)?;
    session.write_opt(&op.stats, &stats)
}

/// With `xhat = (x - mean) rstd` and `g = dy gain`:
/// `dx = rstd (g - [mean(g)] - xhat mean(g xhat)) + dsum`, the bracket in layer norm only.
pub fn backward(session: &mut Reference, op: &NormBackward) -> Result<()> {
    let is_layer = is_layer(op.kind, "norm_backward")?;
    let (x, stats, dy) = (session.read(&op.x)?, session.read(&op.stats)?, session.read(&op.dy)?);
    let weight = session.read_opt(&op.weight)?;
    let mut dx = session.read_opt(&op.dsum)?.unwrap_or_else(|| Matrix::zeros(x.rows, x.cols));
    let mut dweight = Matrix::zeros(1, x.cols);
    let mut dbias = Matrix::zeros(1, x.cols);
    let width = x.cols.max(1) as f64;
    for n in 0..x.rows {
        let (mean, rstd) = (stats.row(n)[0], stats.row(n)[1]);
        let xhat: Vec<f64> = x.row(n).iter().map(|x| (x - mean) * rstd).collect();
        let g: Vec<f64> = dy.row(n).iter().enumerate().map(|(d, dy)| dy * gain(&weight, op.weight_offset, d)).collect();
        let along = dot(&g, &xhat) / width;
        let level = if is_layer { g.iter().sum::<f64>() / width } else { 0.0 };
        for (d, dx) in dx.row_mut(n).iter_mut().enumerate() {
            *dx += rstd * (g[d] - level - xhat[d] * along);
            dweight.data[d] += dy.row(n)[d] * xhat[d];
            dbias.data[d] += dy.row(n)[d];
        }
    }
    session.write(&op.dx, &dx)?;
    session.add_opt(&op.dweight, &dweight)?;
    session.add_opt(&op.dbias, &dbias)
}

fn is_layer(kind: NormKind, op: &str) -> Result<bool> {
    match kind {
        NormKind::RMS => Ok(false),
        NormKind::LAYER => Ok(true),
        other => Err(other.unknown(op)),
    }
}
