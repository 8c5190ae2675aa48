//! Operations element by element: fill, copy, cast, axpy, scale.
//!
//! If the catalogue lets an output be an input, the kernel works in place; otherwise it copies first and then works in place, so
//! that each formula is written once.

use crate::kernels::{
    context::Kernels,
    primitives::{
        operand::{Mat, MatMut},
        parallel::Parallel,
    },
};
use half::{bf16, slice::HalfFloatSliceExt};
use plugin_api::{
    Error, Result,
    backend::{
        DType, View,
        ops::{Axpy, Cast, Copy, Fill, Nop, Scale},
    },
};

plugin_api::operations! {
    ElementwiseOps for Kernels<'_>:
    nop Nop => nop,
    fill Fill => fill,
    copy Copy => copy,
    cast Cast => cast,
    axpy Axpy => axpy,
    scale Scale => scale,
}

/// Nothing.
pub fn nop(_: &mut Kernels<'_>, _: &Nop) -> Result<()> {
    Ok(())
}

/// `x = value`.
pub fn fill(s: &mut Kernels<'_>, op: &Fill) -> Result<()> {
    if op.x.dtype == DType::BF16 {
        let value = bf16::from_f64(op.value);
        let x = halves(s, &op.x)?;
        s.pool.written(op.x.buffer)?;
        // SAFETY: checked view, no other thread is running.
        (0..x.rows).for_each(|r| unsafe { x.row(r).fill(value) });
        return Ok(());
    }
    let x = s.output(&op.x)?;
    let value = op.value as f32;
    s.cx.par.spans(x.rows, x.cols, x.is_dense(), 60, |at| {
        // SAFETY: checked view; spans are disjoint.
        unsafe { x.span(at.row, at.col, at.len) }.fill(value);
    });
    Ok(())
}

/// `y = x`.
pub fn copy(s: &mut Kernels<'_>, op: &Copy) -> Result<()> {
    if op.x.dtype == DType::BF16 {
        let (x, y) = (halves(s, &op.x)?, halves(s, &op.y)?);
        s.pool.written(op.y.buffer)?;
        // SAFETY: checked views that do not overlap; no other thread is running.
        (0..x.rows).for_each(|r| unsafe { y.row(r).copy_from_slice(x.row(r)) });
        return Ok(());
    }
    let (x, y) = (s.input(&op.x)?, s.output(&op.y)?);
    copy_rows(&s.cx.par, x, y);
    Ok(())
}

pub(super) fn copy_rows(par: &Parallel, x: Mat, y: MatMut) {
    par.spans(x.rows, x.cols, x.is_dense() && y.is_dense(), 100, |at| {
        // SAFETY: checked views that do not overlap (alias rules); spans are disjoint.
        unsafe { y.span(at.row, at.col, at.len).copy_from_slice(x.span(at.row, at.col, at.len)) };
    });
}

/// Rows of bf16.
struct Halves {
    ptr: *mut bf16,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl Halves {
    /// # Safety
    /// As [`MatMut::row`].
    #[allow(clippy::mut_from_ref, reason = "a handle to memory, like a raw pointer")]
    unsafe fn row(&self, r: usize) -> &mut [bf16] {
        // SAFETY: inside the checked view; the rest is guaranteed by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(r * self.stride), self.cols) }
    }
}

fn halves(s: &Kernels<'_>, view: &View) -> Result<Halves> {
    if view.dtype != DType::BF16 {
        return Err(Error::unsupported(format!("candle supports f32 and bf16, one operand is {}", view.dtype)));
    }
    let ptr = s.address(view)?.cast();
    Ok(Halves { ptr, rows: view.rows as usize, cols: view.cols as usize, stride: view.row_stride as usize })
}

/// `y = x`, rounded to nearest even.
pub fn cast(s: &mut Kernels<'_>, op: &Cast) -> Result<()> {
    match (op.x.dtype, op.y.dtype) {
        (a, b) if a == b => copy(s, &Copy { x: op.x, y: op.y }),
        (DType::F32, _) => {
            let (x, y) = (s.input(&op.x)?, halves(s, &op.y)?);
            s.pool.written(op.y.buffer)?;
            // SAFETY: checked views that do not overlap; no other thread is running.
            (0..x.rows).for_each(|r| unsafe { y.row(r).convert_from_f32_slice(x.row(r)) });
            Ok(())
        }
        _ => {
            let (x, y) = (halves(s, &op.x)?, s.output(&op.y)?);
            // SAFETY: as above.
            (0..x.rows).for_each(|r| unsafe { x.row(r).convert_to_f32_slice(y.row(r)) });
            Ok(())
        }
    }
}

/// `y += alpha x`.
pub fn axpy(s: &mut Kernels<'_>, op: &Axpy) -> Result<()> {
    let (x, y, alpha) = (s.input(&op.x)?, s.output(&op.y)?, op.alpha as f32);
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
pub fn scale(s: &mut Kernels<'_>, op: &Scale) -> Result<()> {
    let (x, alpha) = (s.output(&op.x)?, op.alpha as f32);
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
pub(super) fn unary(par: &Parallel, y: MatMut, cost: usize, f: impl Fn(f32) -> f32 + Sync) {
    par.spans(y.rows, y.cols, y.is_dense(), cost, |at| {
        par.wide(
            #[inline(always)]
            || {
                // SAFETY: checked view; spans are disjoint.
                let y = unsafe { y.span(at.row, at.col, at.len) };
                // A loop: `for_each` of a long formula is not inlined, and then compiled for another instruction set.
                for y in y {
                    *y = f(*y);
                }
            },
        );
    });
}

/// `y = f(y, x)`.
pub(super) fn binary(par: &Parallel, y: MatMut, x: Mat, cost: usize, f: impl Fn(f32, f32) -> f32 + Sync) {
    par.spans(y.rows, y.cols, y.is_dense() && x.is_dense(), cost, |at| {
        par.wide(
            #[inline(always)]
            || {
                // SAFETY: checked views that do not overlap (alias rules); spans are disjoint.
                let (y, x) = unsafe { (y.span(at.row, at.col, at.len), x.span(at.row, at.col, at.len)) };
                for (y, x) in y.iter_mut().zip(x) {
                    *y = f(*y, *x);
                }
            },
        );
    });
}
