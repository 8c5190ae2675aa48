//! Products of a few rows by a transposed matrix, as in decoding. They take as long as reading the matrix: each of its rows is read
//! once, in place; to pack it would take longer than to multiply. In the same way products of a few columns, as of a head with one
//! output.
//!
//! A sum has a lane for each number of a vector register. So its order depends only on the number of terms and on the instruction
//! set, and is that of the same row in a product of other rows.

use super::{
    factor::Product,
    isa::Isa,
    lines::{prefetch, write_row},
    parallel::Parallel,
};
use pulp::{Simd, WithSimd};
use std::array::from_fn;

/// Most rows of the left factor: beyond them a product is bound by its arithmetic, for which packing pays.
const MOST: usize = 64;
/// Least terms: shorter sums are mostly the addition of lanes.
const LEAST: usize = 64;
/// Columns of the result in a task, or rows if there are fewer than [`NARROW`] columns.
const GROUP: usize = 64;
/// Columns below which a product of any number of rows is computed here.
const NARROW: usize = 4;

/// Whether this is such a product. `baseline` has no fused multiply-add.
pub fn suits(isa: &Isa, p: &Product) -> bool {
    let (m, n, k) = p.sizes();
    isa.name != "baseline" && (m <= MOST || n < NARROW) && k >= LEAST && !p.a.transposed && p.b.transposed
}

/// Computes the product, split into columns or rows that the threads share.
///
/// # Safety
/// The product [`suits`]; the buffers live, no other code accesses `c` or writes `a` or `b`, and neither overlaps `c`.
pub unsafe fn product(par: &Parallel, p: Product) {
    let (m, n, k) = p.sizes();
    let nanoseconds = n * k / 4 + m * n * k / 100;
    if n < NARROW {
        return par.run(m.div_ceil(GROUP), nanoseconds, |task| {
            let from = task * GROUP;
            let p = p.tile((from, GROUP.min(m - from)), (0, n));
            par.isa().arch.dispatch(Columns { p, from: 0, to: n });
        });
    }
    par.run(n.div_ceil(GROUP), nanoseconds, |task| {
        let from = task * GROUP;
        par.isa().arch.dispatch(Columns { p, from, to: n.min(from + GROUP) });
    });
}

/// Some columns of a product.
struct Columns {
    p: Product,
    from: usize,
    to: usize,
}

impl WithSimd for Columns {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Columns { p, from, to } = self;
        let m = p.c.rows;
        let mut col = from;
        if m == 1 {
            while col + 8 <= to {
                // SAFETY: the caller of `product` guarantees it; tasks write disjoint columns.
                unsafe { tile::<S, 1, 8>(simd, &p, 0, col) };
                col += 8;
            }
        }
        while col + 4 <= to {
            for row in (0..m).step_by(4) {
                // SAFETY: as above.
                unsafe {
                    match m - row {
                        1 => tile::<S, 1, 4>(simd, &p, row, col),
                        2 => tile::<S, 2, 4>(simd, &p, row, col),
                        3 => tile::<S, 3, 4>(simd, &p, row, col),
                        _ => tile::<S, 4, 4>(simd, &p, row, col),
                    }
                }
            }
            col += 4;
        }
        for col in col..to {
            let mut row = 0;
            while row < m {
                // SAFETY: as above.
                unsafe {
                    if row + 4 <= m {
                        tile::<S, 4, 1>(simd, &p, row, col);
                        row += 4;
                    } else {
                        tile::<S, 1, 1>(simd, &p, row, col);
                        row += 1;
                    }
                }
            }
        }
    }
}

/// `X` x `W` elements of the result.
#[inline(always)]
unsafe fn tile<S: Simd, const X: usize, const W: usize>(simd: S, p: &Product, row: usize, col: usize) {
    // SAFETY: the caller's; the rows lie inside the factors.
    let (x, w): ([&[f32]; X], [&[f32]; W]) =
        unsafe { (from_fn(|i| p.a.mat.row(row + i)), from_fn(|j| p.b.mat.row(col + j))) };
    let (x, w) = (x.map(S::as_simd_f32s), w.map(S::as_simd_f32s));
    let mut sums = [[simd.splat_f32s(0.0); W]; X];
    // While these rows of the matrix are read for the first time, those of the next columns are on their way.
    let ahead = if row == 0 { W * p.b.mat.stride } else { 0 };
    for c in 0..x[0].0.len() {
        if ahead > 0 {
            w.iter().for_each(|w| prefetch(w.0.as_ptr().wrapping_add(c).cast::<f32>().wrapping_add(ahead)));
        }
        // SAFETY: all rows have this length.
        let b: [S::f32s; W] = from_fn(|j| unsafe { *w[j].0.get_unchecked(c) });
        for i in 0..X {
            // SAFETY: as above.
            let a = unsafe { *x[i].0.get_unchecked(c) };
            for j in 0..W {
                sums[i][j] = simd.mul_add_f32s(a, b[j], sums[i][j]);
            }
        }
    }
    if !x[0].1.is_empty() {
        let b: [S::f32s; W] = from_fn(|j| simd.partial_load_f32s(w[j].1));
        for i in 0..X {
            let a = simd.partial_load_f32s(x[i].1);
            for j in 0..W {
                sums[i][j] = simd.mul_add_f32s(a, b[j], sums[i][j]);
            }
        }
    }
    for (i, sums) in sums.into_iter().enumerate() {
        // A loop: `array::map` is not inlined, and what it calls would be compiled without the set's instructions.
        let mut sum = [0.0; W];
        for j in 0..W {
            sum[j] = simd.reduce_sum_f32s(sums[j]);
        }
        // SAFETY: the caller's.
        unsafe { write_row(p.c, row + i, col, &sum, p.alpha, p.start) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::primitives::{
        factor::{Start, plain, transposed},
        isa,
        operand::{Mat, MatMut},
        packed, single,
    };
    use telos_random::SplitMix64;

    /// Rows `gap` apart, with NaN between them.
    fn matrix(rng: &mut SplitMix64, rows: usize, cols: usize, gap: usize) -> Vec<f32> {
        let number = |at: usize, rng: &mut SplitMix64| match at % (cols + gap) < cols {
            true => (rng.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0,
            false => f32::NAN,
        };
        (0..rows * (cols + gap)).map(|at| number(at, rng)).collect()
    }

    /// Catches columns and terms that are left out or read from outside, a start that is ignored, bits that depend on the threads or
    /// on the other rows, and a product that does not come here.
    #[test]
    fn products_are_exact_sums_with_the_same_bits_for_every_number_of_threads_and_rows() {
        let rng = &mut SplitMix64::new(7);
        for set in isa::available().into_iter().filter(|name| *name != "baseline") {
            for (n, k) in [(1, 64), (3, 65), (8, 79), (64, 80), (65, 100), (131, 577)] {
                // Several tasks of rows where there are few columns.
                let most = if n < NARROW { 2 * GROUP + 9 } else { MOST };
                let (x, w) = (matrix(rng, most, k, 3), matrix(rng, n, k, 5));
                let (before, bias) = (matrix(rng, most, n, 2), matrix(rng, 1, n, 0));
                for (name, start) in [
                    ("zero", Start::Zero),
                    ("accumulate", Start::Accumulate),
                    ("row", Start::Row(Mat::new(bias.as_ptr(), 1, n, n))),
                ] {
                    let run = |m: usize, threads: usize| {
                        let isa = Isa::choose(Some(set), None).unwrap();
                        let mut c = before.clone();
                        let p = Product {
                            c: MatMut::new(c.as_mut_ptr(), m, n, n + 2),
                            a: plain(Mat::new(x.as_ptr(), m, k, k + 3)),
                            b: transposed(Mat::new(w.as_ptr(), n, k, k + 5)),
                            alpha: 0.75,
                            start,
                        };
                        assert!(suits(&isa, &p));
                        // SAFETY: sizes and strides are those of the vectors.
                        unsafe { single::product(&Parallel::new(threads, isa).unwrap(), p) };
                        c.iter().map(|value| value.to_bits()).collect::<Vec<u32>>()
                    };
                    let all = run(most, 1);
                    for (at, bits) in all.iter().enumerate() {
                        let (r, c) = (at / (n + 2), at % (n + 2));
                        if c >= n {
                            assert_eq!(*bits, before[at].to_bits(), "between the rows");
                            continue;
                        }
                        let terms = (0..k).map(|t| f64::from(x[r * (k + 3) + t]) * f64::from(w[c * (k + 5) + t]));
                        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                        let start = match name {
                            "zero" => 0.0,
                            "accumulate" => f64::from(before[at]),
                            _ => f64::from(bias[c]),
                        };
                        let (found, expected) = (f64::from(f32::from_bits(*bits)), start + 0.75 * sum);
                        let limit = 4e-7 * (k as f64).sqrt() * (size + start.abs());
                        assert!((found - expected).abs() <= limit, "{set} {n} {k} {name} [{r}, {c}]");
                    }
                    for (m, threads) in [(most, 2), (most, 3), (1, 1), (2, 2), (3, 1), (7, 3)] {
                        let len = m * (n + 2);
                        assert!(run(m, threads)[..len] == all[..len], "{set}, {m} rows, {threads} threads: other bits");
                    }
                }
            }
        }
    }

    #[test]
    #[ignore = "measures; it checks nothing"]
    fn speed() {
        let rng = &mut SplitMix64::new(7);
        for (n, k) in [(576, 576), (1536, 576), (576, 1536), (49152, 576)] {
            let matrices: Vec<Vec<f32>> =
                (0..(120_000_000 / (n * k)).clamp(2, 60)).map(|_| matrix(rng, n, k, 0)).collect();
            for m in [1, 2, 4, 8, 16, 32, 48, 64, 96, 128] {
                let (x, mut c) = (matrix(rng, m, k, 0), vec![0.0; m * n]);
                let par = Parallel::new(2, Isa::choose(None, None).unwrap()).unwrap();
                let mut time = |own: bool| {
                    let mut best = f64::INFINITY;
                    for _ in 0..5 {
                        let start = std::time::Instant::now();
                        for w in &matrices {
                            let p = Product {
                                c: MatMut::new(c.as_mut_ptr(), m, n, n),
                                a: plain(Mat::new(x.as_ptr(), m, k, k)),
                                b: transposed(Mat::new(w.as_ptr(), n, k, k)),
                                alpha: 1.0,
                                start: Start::Zero,
                            };
                            // SAFETY: sizes and strides are those of the vectors.
                            unsafe { if own { product(&par, p) } else { packed::product(&par, p) } };
                        }
                        best = best.min(start.elapsed().as_secs_f64());
                    }
                    let all = (matrices.len() * n * k) as f64;
                    (4.0 * all / best / 1e9, 2.0 * m as f64 * all / best / 1e9)
                };
                let (own, packed) = (time(true), time(false));
                println!(
                    "{m} x {n} x {k}: in place {:.1} GB/s, {:.0} GFLOP/s; packed {:.1} GB/s, {:.0} GFLOP/s",
                    own.0, own.1, packed.0, packed.1
                );
            }
        }
    }
}
