//! Linear layers.

use super::context::{Generic, Outcome};
use candle_core::{DType, Tensor};
use plugin_api::backend::ops::{Linear, LinearBackwardInput, LinearBackwardWeight};

plugin_api::operations! {
    LinearOps for Generic<'_>:
    linear Linear => forward,
    linear_backward_input LinearBackwardInput => backward_input,
    linear_backward_weight LinearBackwardWeight => backward_weight,
}

/// The product; zero if there is nothing to sum over (candle refuses some empty shapes).
pub fn matmul(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    let (m, k, n) = (a.dim(0)?, a.dim(1)?, b.dim(1)?);
    if m * k * n == 0 {
        return Tensor::zeros((m, n), DType::F32, a.device());
    }
    a.matmul(b)
}

/// `y = x w^T + bias`.
pub fn forward(s: &mut Generic<'_>, op: &Linear) -> Outcome {
    let (x, w) = (s.input(&op.x)?, s.input(&op.w)?);
    let mut y = matmul(&x, &w.t()?)?;
    if let Some(bias) = s.input_opt(&op.bias)? {
        y = y.broadcast_add(&bias)?;
    }
    s.output(&op.y, &y)
}

/// `dx = dy w`, or `dx += dy w`.
pub fn backward_input(s: &mut Generic<'_>, op: &LinearBackwardInput) -> Outcome {
    let dx = matmul(&s.input(&op.dy)?, &s.input(&op.w)?)?;
    if op.accumulate { s.add(&op.dx, &dx) } else { s.output(&op.dx, &dx) }
}

/// `dw += dy^T x`, `dbias += sum_n dy[n]`.
pub fn backward_weight(s: &mut Generic<'_>, op: &LinearBackwardWeight) -> Outcome {
    let (x, dy) = (s.input(&op.x)?, s.input(&op.dy)?);
    if op.x.is_empty() && op.dy.is_empty() {
        return Ok(());
    }
    s.add(&op.dw, &matmul(&dy.t()?, &x)?)?;
    match &op.dbias {
        Some(dbias) if !op.dy.is_empty() => s.add(dbias, &dy.sum_keepdim(0)?),
        _ => Ok(()),
    }
}
