//! Products with a factor in bf16 on processors without instructions for them: parts of the factors are converted to f32.

use crate::kernels::primitives::{
    element::{Element, load_row},
    factor::{Factor, Product, Start},
    isa::Isa,
    lines::write_row,
    operand::{Mat, MatMut},
    parallel::Parallel,
    single,
};

/// Rows and columns of a tile.
const SIDE: usize = 256;
/// Terms that are converted at a time.
const DEPTH: usize = 512;

/// As [`super::product`].
///
/// # Safety
/// As [`super::product`].
pub unsafe fn product<A: Element, B: Element, C: Element>(par: &Parallel, p: Product<A, B, C>) {
    let (m, n, k) = p.sizes();
    let (high, wide) = (side(m), side(n));
    let across = n.div_ceil(wide);
    par.run_scratch(m.div_ceil(high) * across, m * n * k / 50, block_len(par.isa(), high, wide, k), |task, scratch| {
        let (i, j) = (task / across * high, task % across * wide);
        // SAFETY: tiles are disjoint; the rest is the caller's.
        unsafe { block(par.isa(), scratch, p.tile((i, high.min(m - i)), (j, wide.min(n - j)))) };
    });
}

/// Floats of a task's scratch in [`product`].
pub fn product_len(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    block_len(isa, side(m), side(n), k)
}

/// Rows or columns of a tile: several tiles of a small result, of a depth that amortises their conversion.
fn side(len: usize) -> usize {
    len.div_ceil(4).next_multiple_of(32).clamp(32, SIDE)
}

/// Floats of scratch that [`block`] needs: both factors, the sums, and what the product in f32 needs.
pub fn block_len(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    let terms = k.min(DEPTH);
    (m + n) * terms + m * n + single::block_len(isa, m, n, terms)
}

/// As [`super::block`].
///
/// # Safety
/// As [`super::product`].
pub unsafe fn block<A: Element, B: Element, C: Element>(isa: &Isa, scratch: &mut [f32], p: Product<A, B, C>) {
    let (m, n, k) = p.sizes();
    let (sums, factors) = scratch.split_at_mut(m * n);
    let (left, rest) = factors.split_at_mut(m * k.min(DEPTH));
    let (right, product) = rest.split_at_mut(n * k.min(DEPTH));
    let sums = MatMut::over(sums, m, n);
    for from in (0..k.max(1)).step_by(DEPTH) {
        let terms = DEPTH.min(k - from);
        let start = if from == 0 { Start::Zero } else { Start::Accumulate };
        // SAFETY: scratch of this call; the factors are only read.
        unsafe {
            let a = converted(isa, p.a.col_block(from, terms), left);
            let b = converted(isa, p.b.row_block(from, terms), right);
            single::block(isa, product, Product { c: sums, a, b, alpha: p.alpha, start });
        }
    }
    isa.wide(
        #[inline(always)]
        || {
            for r in 0..m {
                // SAFETY: the caller's.
                unsafe { write_row(p.c, r, 0, sums.row(r), 1.0, p.start) };
            }
        },
    );
}

/// The factor in f32.
unsafe fn converted<E: Element>(isa: &Isa, factor: Factor<E>, to: &mut [f32]) -> Factor {
    let from = factor.mat;
    let copy = MatMut::over(to, from.rows, from.cols);
    isa.wide(
        #[inline(always)]
        || {
            for r in 0..from.rows {
                // SAFETY: scratch of this call; the factor is only read.
                unsafe { load_row(copy.row(r), from.row(r)) };
            }
        },
    );
    let mat: Mat = copy.as_mat();
    Factor { mat, transposed: factor.transposed }
}
