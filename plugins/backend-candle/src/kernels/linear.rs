//! Linear layers: three matrix products and two sums over tokens.

use crate::kernels::{
    context::{Kernels, kernels},
    primitives::{
        element::Element,
        gemm::{Product, Start, plain, product, transposed},
        operand::{Mat, MatMut},
        parallel::Parallel,
    },
};
use plugin_api::{
    Result,
    backend::ops::{Linear, LinearBackwardInput, LinearBackwardWeight},
};

kernels! {
    LinearOps:
    linear Linear [x] => forward,
    linear_backward_input LinearBackwardInput [dy] => backward_input,
    linear_backward_weight LinearBackwardWeight [x] => backward_weight,
}

/// `y = x w^T + bias`.
pub fn forward<E: Element>(s: &mut Kernels<'_>, op: &Linear) -> Result<()> {
    let (x, w, bias): (Mat<E>, Mat<E>, Option<Mat<E>>) = (s.input(&op.x)?, s.input(&op.w)?, s.input_opt(&op.bias)?);
    let y: MatMut<E> = s.output(&op.y)?;
    let start = bias.map_or(Start::Zero, Start::Row);
    // SAFETY: checked views; by the alias rules `y` does not overlap the inputs.
    unsafe { product(&s.cx.par, Product { c: y, a: plain(x), b: transposed(w), alpha: 1.0, start }) };
    Ok(())
}

/// `dx = dy w`, or `dx += dy w`.
pub fn backward_input<E: Element>(s: &mut Kernels<'_>, op: &LinearBackwardInput) -> Result<()> {
    let (dy, w): (Mat<E>, Mat<E>) = (s.input(&op.dy)?, s.input(&op.w)?);
    let dx: MatMut<E> = s.output(&op.dx)?;
    let start = if op.accumulate { Start::Accumulate } else { Start::Zero };
    // SAFETY: as in `forward`.
    unsafe { product(&s.cx.par, Product { c: dx, a: plain(dy), b: plain(w), alpha: 1.0, start }) };
    Ok(())
}

/// `dw += dy^T x`, `dbias += sum_n dy[n]`.
pub fn backward_weight<E: Element>(s: &mut Kernels<'_>, op: &LinearBackwardWeight) -> Result<()> {
    let (x, dy): (Mat<E>, Mat<E>) = (s.input(&op.x)?, s.input(&op.dy)?);
    let dw: MatMut = s.output(&op.dw)?;
    let dbias = s.output_opt(&op.dbias)?;
    let p = Product { c: dw, a: transposed(dy), b: plain(x), alpha: 1.0, start: Start::Accumulate };
    // SAFETY: as in `forward`.
    unsafe {
        product(&s.cx.par, p);
        if let Some(dbias) = dbias {
            add_column_sums(&s.cx.par, dbias, dy);
        }
    }
    Ok(())
}

/// Columns that a task sums.
const COLUMNS: usize = 64;

/// `sums += sum over rows`, each column in ascending row order.
///
/// # Safety
/// The buffers live, no other code accesses `sums` or writes `rows`, and they do not overlap.
pub unsafe fn add_column_sums<E: Element>(par: &Parallel, sums: MatMut, rows: Mat<E>) {
    par.run(rows.cols.div_ceil(COLUMNS), rows.rows * rows.cols / 8, |task| {
        let from = task * COLUMNS;
        let len = COLUMNS.min(rows.cols - from);
        // SAFETY: tasks write disjoint columns; the rest is guaranteed by the caller.
        let sums = unsafe { sums.span(0, from, len) };
        par.wide(
            #[inline(always)]
            || {
                let mut total = [0.0f32; COLUMNS];
                for r in 0..rows.rows {
                    // SAFETY: inside the matrix, and only read.
                    let row = unsafe { rows.span(r, from, len) };
                    if let Ok(row) = <&[E; COLUMNS]>::try_from(row) {
                        (0..COLUMNS).for_each(|c| total[c] += row[c].load());
                    } else {
                        total.iter_mut().zip(row).for_each(|(t, x)| *t += x.load());
                    }
                }
                sums.iter_mut().zip(&total).for_each(|(s, t)| *s += t);
            },
        );
    });
}
