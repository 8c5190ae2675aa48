//! Linear layers: the product, and the cotangents of its three operands.

use crate::{
    Reference,
    matrix::{Matrix, axpy, dot},
};
use plugin_api::{
    Result,
    backend::ops::{Linear, LinearBackwardInput, LinearBackwardWeight},
};

plugin_api::operations! {
    LinearOps for Reference:
    linear Linear => forward,
    linear_backward_input LinearBackwardInput => backward_input,
    linear_backward_weight LinearBackwardWeight => backward_weight,
}

/// `y = x w^T + bias`.
pub fn forward(s: &mut Reference, op: &Linear) -> Result<()> {
    let (x, w) = (s.read(&op.x)?, s.read(&op.w)?);
    let bias = s.read_opt(&op.bias)?;
    let mut y = Matrix::zeros(x.rows, w.rows);
    for n in 0..x.rows {
        for (o, y) in y.row_mut(n).iter_mut().enumerate() {
            *y = dot(x.row(n), w.row(o)) + bias.as_ref().map_or(0.0, |b| b.data[o]);
        }
    }
    s.write(&op.y, &y)
}

/// `dx = dy w`, or `dx += dy w` if `accumulate`.
pub fn backward_input(s: &mut Reference, op: &LinearBackwardInput) -> Result<()> {
    let (dy, w) = (s.read(&op.dy)?, s.read(&op.w)?);
    let mut dx = Matrix::zeros(dy.rows, w.cols);
    for n in 0..dy.rows {
        for (o, &dy) in dy.row(n).iter().enumerate() {
            axpy(dx.row_mut(n), dy, w.row(o));
        }
    }
    if op.accumulate { s.add(&op.dx, &dx) } else { s.write(&op.dx, &dx) }
}

/// `dw += dy^T x`, `dbias += sum_n dy[n]`.
pub fn backward_weight(s: &mut Reference, op: &LinearBackwardWeight) -> Result<()> {
    let (x, dy) = (s.read(&op.x)?, s.read(&op.dy)?);
    let mut dw = Matrix::zeros(dy.cols, x.cols);
    let mut dbias = Matrix::zeros(1, dy.cols);
    for n in 0..x.rows {
        for (o, &dy) in dy.row(n).iter().enumerate() {
            axpy(dw.row_mut(o), dy, x.row(n));
        }
        axpy(&mut dbias.data, 1.0, dy.row(n));
    }
    s.add(&op.dw, &dw)?;
    s.add_opt(&op.dbias, &dbias)
}
