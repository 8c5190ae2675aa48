//! Linear layers: the product, and the cotangents of its three operands.

use crate::{
    TorchSession,
    fault::{Attempt, Done},
    storage::{accumulator, to},
};
use plugin_api::backend::ops::{Linear, LinearBackwardInput, LinearBackwardWeight};
use tch::Tensor;

plugin_api::operations! {
    LinearOps for TorchSession:
    linear Linear => forward,
    linear_backward_input LinearBackwardInput => backward_input,
    linear_backward_weight LinearBackwardWeight => backward_weight,
}

/// `y = x w^T + bias`.
pub fn forward(s: &mut TorchSession, op: &Linear) -> Attempt {
    let (x, w, y) = (s.at(&op.x)?, s.at(&op.w)?.f_tr()?, s.at(&op.y)?);
    match s.at_opt(&op.bias)? {
        Some(bias) => bias.f_addmm_out(&y, &x, &w).done(),
        None => x.f_mm_out(&y, &w).done(),
    }
}

/// `dx = dy w`, or `dx += dy w` if `accumulate`.
pub fn backward_input(s: &mut TorchSession, op: &LinearBackwardInput) -> Attempt {
    let (dy, w, mut dx) = (s.at(&op.dy)?, s.at(&op.w)?, s.at(&op.dx)?);
    if op.accumulate {
        dx.f_addmm_(&dy, &w).done()?;
    } else {
        dy.f_mm_out(&dx, &w).done()?;
    }
    Ok(())
}

/// `dw += dy^T x`, `dbias += sum_n dy[n]`.
pub fn backward_weight(s: &mut TorchSession, op: &LinearBackwardWeight) -> Attempt {
    let (x, dy) = (s.at(&op.x)?, s.at(&op.dy)?);
    add_product(&mut s.at(&op.dw)?, &dy, &x)?;
    if let Some(mut dbias) = s.at_opt(&op.dbias)? {
        add_column_sums(&mut dbias, &dy)?;
    }
    Ok(())
}

/// `dw += dy^T x`, in the accumulator's precision.
pub fn add_product(dw: &mut Tensor, dy: &Tensor, x: &Tensor) -> Attempt {
    let (kind, dy) = (dy.f_kind()?, dy.f_tr()?);
    if kind == accumulator(kind) {
        dw.f_addmm_(&dy, x).done()?;
    } else if dw.device().is_cuda() {
        dw.f_add_(&dy.f_mm_dtype(x, accumulator(kind))?).done()?;
    } else {
        dw.f_add_(&dy.f_mm(x)?).done()?;
    }
    Ok(())
}

/// `dbias += sum_n dy[n]`.
pub fn add_column_sums(dbias: &mut Tensor, dy: &Tensor) -> Attempt {
    let dy = to(dy, accumulator(dy.f_kind()?))?;
    dbias.f_add_(&dy.f_sum_dim_intlist([0i64].as_slice(), true, None)?).done()?;
    Ok(())
}
