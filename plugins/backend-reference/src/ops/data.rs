//! Copies and simple arithmetic: nop, fill, copy, cast, axpy, scale, gather and scatter-add of rows.

use crate::{
    Reference,
    matrix::{self, Matrix},
};
use plugin_api::{
    Result,
    backend::ops::{Axpy, Cast, Copy, Fill, GatherRows, Nop, Scale, ScatterAddRows},
};

plugin_api::operations! {
    ElementwiseOps for Reference:
    nop Nop => nop,
    fill Fill => fill,
    copy Copy => copy,
    cast Cast => cast,
    axpy Axpy => axpy,
    scale Scale => scale,
}

/// Does nothing.
pub fn nop(_: &mut Reference, _: &Nop) -> Result<()> {
    Ok(())
}

/// `x = value`.
pub fn fill(s: &mut Reference, op: &Fill) -> Result<()> {
    let mut x = s.read(&op.x)?;
    x.data.fill(op.value);
    s.write(&op.x, &x)
}

/// `y = x`.
pub fn copy(s: &mut Reference, op: &Copy) -> Result<()> {
    let x = s.read(&op.x)?;
    s.write(&op.y, &x)
}

/// `y = x`, rounded to y's type.
pub fn cast(s: &mut Reference, op: &Cast) -> Result<()> {
    let x = s.read(&op.x)?;
    s.write(&op.y, &x)
}

/// `y += alpha x`.
pub fn axpy(s: &mut Reference, op: &Axpy) -> Result<()> {
    let mut y = s.read(&op.y)?;
    matrix::axpy(&mut y.data, op.alpha, &s.read(&op.x)?.data);
    s.write(&op.y, &y)
}

/// `x *= alpha`.
pub fn scale(s: &mut Reference, op: &Scale) -> Result<()> {
    let mut x = s.read(&op.x)?;
    x.data.iter_mut().for_each(|x| *x *= op.alpha);
    s.write(&op.x, &x)
}

/// `y[m] = x[index[m]]`.
pub fn gather_rows(s: &mut Reference, op: &GatherRows) -> Result<()> {
    let x = s.read(&op.x)?;
    let index = s.indices("gather_rows", "index", &op.index, x.rows)?;
    let mut y = Matrix::zeros(index.len(), x.cols);
    for (m, &n) in index.iter().enumerate() {
        y.row_mut(m).copy_from_slice(x.row(n));
    }
    s.write(&op.y, &y)
}

/// `dx[index[m]] += dy[m]`.
pub fn scatter_add_rows(s: &mut Reference, op: &ScatterAddRows) -> Result<()> {
    let mut dx = s.read(&op.dx)?;
    let dy = s.read(&op.dy)?;
    let index = s.indices("scatter_add_rows", "index", &op.index, dx.rows)?;
    for (m, &n) in index.iter().enumerate() {
        matrix::axpy(dx.row_mut(n), 1.0, dy.row(m));
    }
    s.write(&op.dx, &dx)
}
