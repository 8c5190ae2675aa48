//! Moving data: fill, copy, cast, axpy, scale, and rows by index.

use crate::{
    TorchSession,
    fault::{Attempt, Done},
    storage::{accumulator, to},
};
use plugin_api::backend::ops::{Axpy, Cast, Copy, Fill, GatherRows, Nop, Scale, ScatterAddRows};
use tch::{Kind, Tensor};

plugin_api::operations! {
    ElementwiseOps for TorchSession:
    nop Nop => nop,
    fill Fill => fill,
    copy Copy => copy,
    cast Cast => cast,
    axpy Axpy => axpy,
    scale Scale => scale,
}

/// Nothing.
pub fn nop(_: &mut TorchSession, _: &Nop) -> Attempt {
    Ok(())
}

/// `x = value`.
pub fn fill(s: &mut TorchSession, op: &Fill) -> Attempt {
    let mut x = s.at(&op.x)?;
    // Rounded on the host and filled on the device: a tensor in host memory would be expanded there and then copied.
    let value = match x.f_kind()? {
        Kind::Double => op.value,
        Kind::Float => f64::from(op.value as f32),
        kind => rounded_value(op.value, kind)?,
    };
    x.f_fill_(value).done()
}

#[expect(clippy::disallowed_methods, reason = "the tensor lies in the host's memory: nothing is waited for")]
fn rounded_value(value: f64, kind: Kind) -> Attempt<f64> {
    Ok(rounded(&Tensor::f_from_slice(&[value])?, kind)?.f_double_value(&[0])?)
}

/// `y = x`.
pub fn copy(s: &mut TorchSession, op: &Copy) -> Attempt {
    Ok(s.at(&op.y)?.f_copy_(&s.at(&op.x)?)?)
}

/// `y = x`, rounded once.
pub fn cast(s: &mut TorchSession, op: &Cast) -> Attempt {
    let mut y = s.at(&op.y)?;
    let x = rounded(&s.at(&op.x)?, y.f_kind()?)?;
    Ok(y.f_copy_(&x)?)
}

/// `y += alpha x`.
pub fn axpy(s: &mut TorchSession, op: &Axpy) -> Attempt {
    let (x, mut y) = (s.at(&op.x)?, s.at(&op.y)?);
    if op.alpha == 1.0 {
        y.f_add_(&x).done()?;
    } else {
        y.f_add_(&to(&x, accumulator(x.f_kind()?))?.f_mul_scalar(op.alpha)?).done()?;
    }
    Ok(())
}

/// `x *= alpha`.
pub fn scale(s: &mut TorchSession, op: &Scale) -> Attempt {
    s.at(&op.x)?.f_mul_scalar_(op.alpha).done()?;
    Ok(())
}

/// `y[m] = x[index[m]]`.
pub fn gather_rows(s: &mut TorchSession, op: &GatherRows) -> Attempt {
    let index = s.index("gather_rows", "index", &op.index, op.x.rows)?;
    s.at(&op.x)?.f_index_select_out(&s.at(&op.y)?, 0, &index).done()?;
    Ok(())
}

/// `dx[index[m]] += dy[m]`.
pub fn scatter_add_rows(s: &mut TorchSession, op: &ScatterAddRows) -> Attempt {
    let index = s.index("scatter_add_rows", "index", &op.index, op.dx.rows)?;
    let (dy, mut dx) = (s.at(&op.dy)?, s.at(&op.dx)?);
    let kind = dx.f_kind()?;
    if kind == accumulator(kind) {
        return add_rows(s, &mut dx, &index, &dy);
    }
    // A row may be added to many times: it is rounded once, at the end.
    let mut sum = to(&dx, accumulator(kind))?;
    add_rows(s, &mut sum, &index, &to(&dy, accumulator(kind))?)?;
    Ok(dx.f_copy_(&sum)?)
}

/// `table[index[n]] += rows[n]` for equal dtypes, always in the same order.
pub fn add_rows(s: &TorchSession, table: &mut Tensor, index: &Tensor, rows: &Tensor) -> Attempt {
    if s.on_cpu() {
        // Adds one row after the other.
        table.f_index_add_(0, index, rows).done()?;
    } else {
        // Sorts the indices first; `index_add_` would add in whatever order the device uses.
        table.f_index_put_(&[Some(index)], rows, true).done()?;
    }
    Ok(())
}

/// `x` in another float type, to nearest even in one rounding.
///
/// libtorch converts from f64 to bf16 through f32, and rounding twice is wrong for values just next to a tie. Rounding to odd in
/// f32 first preserves that something was below.
fn rounded(x: &Tensor, kind: Kind) -> Attempt<Tensor> {
    if x.f_kind()? != Kind::Double || kind != Kind::BFloat16 {
        return to(x, kind);
    }
    let near = to(x, Kind::Float)?;
    let back = to(&near, Kind::Double)?;
    let bits = near.f_view_dtype(Kind::Int)?;
    let above = to(&back.f_abs()?.f_gt_tensor(&x.f_abs()?)?, Kind::Int)?;
    let odd = bits.f_sub(&above)?.f_bitwise_or(1)?;
    let inexact = back.f_ne_tensor(x)?.f_logical_and(&x.f_isnan()?.f_logical_not()?)?;
    to(&odd.f_where_self(&inexact, &bits)?.f_view_dtype(Kind::Float)?, Kind::BFloat16)
}
