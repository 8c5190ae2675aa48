//! The operations on matrices that are neither elementwise nor a selection of elements: logsumexp and the product.

use super::reduce::last_axis;
use crate::tape::error::TapeError;
use crate::tape::graph::{Rule, Var, array, chain};
use crate::tape::kind::OpKind;

impl<'t> Var<'t> {
    /// `log(sum(exp(x)))` over the last axis: `[N, K]` to `[N]`, `[N]` to a scalar. The maximum is subtracted first, so that
    /// nothing overflows. Entries of -inf (impossible candidates) add nothing; if all are -inf, so is the result.
    #[must_use]
    pub fn logsumexp(self) -> Var<'t> {
        self.tape.record(OpKind::LogSumExp, &[self], |state| {
            let (outer, width) = last_axis(OpKind::LogSumExp, state.value(self).shape())?;
            let rows: usize = outer.iter().product();
            let x = state.flat(self);
            let value = (0..rows).map(|row| logsumexp(&x[row * width..(row + 1) * width])).collect();
            Ok((array(outer, value), Rule::LogSumExp { x: self.index, width }))
        })
    }

    /// The matrix product: `[M, K]` with `[K, N]` gives `[M, N]`, with a vector `[K]` gives `[M]`. For small matrices such as
    /// in-batch similarities.
    #[must_use]
    pub fn matmul(self, other: Var<'t>) -> Var<'t> {
        const OP: OpKind = OpKind::Matmul;
        self.tape.record(OP, &[self, other], |state| {
            let (left, right) = (state.value(self).shape(), state.value(other).shape());
            let disagree = || TapeError::Shape { op: OP, left: left.to_vec(), right: right.to_vec() };
            let (shape, inner, columns) = match (left, right) {
                (&[rows, inner], &[other, columns]) if inner == other => (vec![rows, columns], inner, columns),
                (&[rows, inner], &[other]) if inner == other => (vec![rows], inner, 1),
                _ => return Err(disagree()),
            };
            let value = matmul(state.flat(self), state.flat(other), left[0], inner, columns);
            Ok((array(&shape, value), Rule::Matmul { a: self.index, b: other.index, inner, columns }))
        })
    }
}

/// The maximum `m`, and the sum of `exp(x - m)`. Any NaN makes both NaN.
fn scaled(x: &[f64]) -> (f64, f64) {
    let greater = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) };
    let maximum = x.iter().copied().fold(f64::NEG_INFINITY, greater);
    (maximum, x.iter().map(|x| (x - maximum).exp()).sum())
}

fn logsumexp(x: &[f64]) -> f64 {
    match scaled(x) {
        (maximum, _) if maximum.is_infinite() => maximum,
        (maximum, sum) => maximum + sum.ln(),
    }
}

/// Adds each row's softmax times its cotangent to `slot`.
pub(in crate::tape) fn logsumexp_backward(cotangent: &[f64], x: &[f64], width: usize, slot: &mut [f64]) {
    if width == 0 {
        return;
    }
    for ((slot, x), g) in slot.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(cotangent) {
        // Not exp(x - logsumexp(x)): the difference of two large numbers would lose the digits that `x - maximum` keeps.
        let (maximum, sum) = scaled(x);
        for (slot, x) in slot.iter_mut().zip(x) {
            // A candidate of log-probability -inf has share 0, even if all of them are -inf.
            let share = if *x == f64::NEG_INFINITY { 0.0 } else { (x - maximum).exp() / sum };
            *slot += chain(*g, share);
        }
    }
}

/// Written out instead of `ndarray::linalg`: the order of the additions is then the same on every machine, and the backward pass
/// can skip zero cotangents, which a plain product cannot (0 * NaN).
fn matmul(a: &[f64], b: &[f64], rows: usize, inner: usize, columns: usize) -> Vec<f64> {
    let mut c = vec![0.0; rows * columns];
    for row in 0..rows {
        let c = &mut c[row * columns..(row + 1) * columns];
        for k in 0..inner {
            let a = a[row * inner + k];
            for (c, b) in c.iter_mut().zip(&b[k * columns..(k + 1) * columns]) {
                *c += a * b;
            }
        }
    }
    c
}

/// The cotangents of both factors.
pub(in crate::tape) fn matmul_backward(
    cotangent: &[f64],
    a: &[f64],
    b: &[f64],
    inner: usize,
    columns: usize,
) -> (Vec<f64>, Vec<f64>) {
    let (mut by_a, mut by_b) = (vec![0.0; a.len()], vec![0.0; b.len()]);
    if inner == 0 || columns == 0 {
        return (by_a, by_b);
    }
    for (row, cotangent) in cotangent.chunks_exact(columns).enumerate() {
        for k in 0..inner {
            let (b, by_b) = (&b[k * columns..(k + 1) * columns], &mut by_b[k * columns..(k + 1) * columns]);
            let a = a[row * inner + k];
            for ((g, b), by_b) in cotangent.iter().zip(b).zip(by_b) {
                by_a[row * inner + k] += chain(*g, *b);
                *by_b += chain(*g, a);
            }
        }
    }
    (by_a, by_b)
}
