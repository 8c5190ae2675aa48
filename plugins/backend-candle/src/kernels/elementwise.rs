//! Operations element by element: fill, copy, cast, axpy, scale.
//!
//! If the catalogue lets an output be an input, the kernel works in place; otherwise it copies first and then works in place, so
//! that each formula is written once.

use crate::kernels::{
    context::{Kernels, kernels},
    primitives::{
        element::{Element, load_row, store_row},
        operand::{Mat, MatMut},
        parallel::Parallel,
    },
};
use half::bf16;
use plugin_api::{
    Result,
    backend::{
        DType,
        ops::{Axpy, Cast, Copy, Fill, Nop, Scale},
    },
};

kernels! {
    ElementwiseOps:
    nop Nop => nop,
    fill Fill [x] => fill,
    copy Copy [x] => copy,
    cast Cast => cast,
    axpy Axpy [x] => axpy,
    scale Scale [x] => scale,
}

/// Nothing.
pub fn nop(_: &mut Kernels<'_>, _: &Nop) -> Result<()> {
    Ok(())
}

/// `x = value`.
pub fn fill<E: Element>(s: &mut Kernels<'_>, op: &Fill) -> Result<()> {
    let x: MatMut<E> = s.output(&op.x)?;
    let value = E::of_f64(op.value);
    s.cx.par.spans(x.rows, x.cols, x.is_dense(), 60, |at| {
        // SAFETY: checked view; spans are disjoint.
        unsafe { x.span(at.row, at.col, at.len) }.fill(value);
    });
    Ok(())
}

/// `y = x`.
pub fn copy<E: Element>(s: &mut Kernels<'_>, op: &Copy) -> Result<()> {
    let (x, y): (Mat<E>, MatMut<E>) = (s.input(&op.x)?, s.output(&op.y)?);
    copy_rows(&s.cx.par, x, y);
    Ok(())
}

pub(super) fn copy_rows<E: Element>(par: &Parallel, x: Mat<E>, y: MatMut<E>) {
    par.spans(x.rows, x.cols, x.is_dense() && y.is_dense(), 100, |at| {
        // SAFETY: checked views that do not overlap (alias rules); spans are disjoint.
        unsafe { y.span(at.row, at.col, at.len).copy_from_slice(x.span(at.row, at.col, at.len)) };
    });
}

/// `y = x`, rounded to nearest even.
pub fn cast(s: &mut Kernels<'_>, op: &Cast) -> Result<()> {
    match (op.x.dtype, op.y.dtype) {
        (DType::F32, DType::F32) => copy::<f32>(s, &Copy { x: op.x, y: op.y }),
        (DType::BF16, DType::BF16) => copy::<bf16>(s, &Copy { x: op.x, y: op.y }),
        (DType::F32, _) => {
            let (x, y): (Mat, MatMut<bf16>) = (s.input(&op.x)?, s.output(&op.y)?);
            convert(&s.cx.par, x, y, store_row);
            Ok(())
        }
        _ => {
            let (x, y): (Mat<bf16>, MatMut) = (s.input(&op.x)?, s.output(&op.y)?);
            convert(&s.cx.par, x, y, load_row);
            Ok(())
        }
    }
}

/// Calls `f(part of y, part of x)` for all parts.
fn convert<X: Element, Y: Element>(par: &Parallel, x: Mat<X>, y: MatMut<Y>, f: impl Fn(&mut [Y], &[X]) + Sync) {
    par.spans(x.rows, x.cols, x.is_dense() && y.is_dense(), 100, |at| {
        par.wide(
            #[inline(always)]
            // SAFETY: checked views that do not overlap (alias rules); spans are disjoint.
            || unsafe { f(y.span(at.row, at.col, at.len), x.span(at.row, at.col, at.len)) },
        );
    });
}

/// `y += alpha x`.
pub fn axpy<E: Element>(s: &mut Kernels<'_>, op: &Axpy) -> Result<()> {
    let (x, y, alpha): (Mat<E>, MatMut<E>, f32) = (s.input(&op.x)?, s.output(&op.y)?, op.alpha as f32);
    binary(
        &s.cx.par,
        y,
        x,
        150,
        #[inline(always)]
        move |y, x| alpha.mul_add(x, y),
    );
    Ok(())
}

/// `x *= alpha`.
pub fn scale<E: Element>(s: &mut Kernels<'_>, op: &Scale) -> Result<()> {
    let (x, alpha): (MatMut<E>, f32) = (s.output(&op.x)?, op.alpha as f32);
    unary(
        &s.cx.par,
        x,
        100,
        #[inline(always)]
        move |x| x * alpha,
    );
    Ok(())
}

/// `y = f(y)`.
pub(super) fn unary<E: Element>(par: &Parallel, y: MatMut<E>, cost: usize, f: impl Fn(f32) -> f32 + Sync) {
    par.spans(y.rows, y.cols, y.is_dense(), cost, |at| {
        par.wide(
            #[inline(always)]
            || {
                // SAFETY: checked view; spans are disjoint.
                let y = unsafe { y.span(at.row, at.col, at.len) };
                // A loop: `for_each` of a long formula is not inlined, and then compiled for another instruction set.
                for y in y {
                    *y = E::store(f(y.load()));
                }
            },
        );
    });
}

/// `y = f(y, x)`.
pub(super) fn binary<E: Element>(
    par: &Parallel,
    y: MatMut<E>,
    x: Mat<E>,
    cost: usize,
    f: impl Fn(f32, f32) -> f32 + Sync,
) {
    par.spans(y.rows, y.cols, y.is_dense() && x.is_dense(), cost, |at| {
        par.wide(
            #[inline(always)]
            || {
                // SAFETY: checked views that do not overlap (alias rules); spans are disjoint.
                let (y, x) = unsafe { (y.span(at.row, at.col, at.len), x.span(at.row, at.col, at.len)) };
                for (y, x) in y.iter_mut().zip(x) {
                    *y = E::store(f(y.load(), x.load()));
                }
            },
        );
    });
}
