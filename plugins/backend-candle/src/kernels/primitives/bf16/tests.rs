//! The product compared with sums in f64, for every set of this processor.

use super::packed::{DEPTH, HEIGHT, WIDTH};
use crate::kernels::primitives::{
    element::{Element, is_f32},
    factor::{Factor, Product, Start},
    gemm,
    isa::{self, Isa},
    operand::{Mat, MatMut},
    parallel::Parallel,
};
use half::bf16;
use telos_random::SplitMix64;

/// A matrix with noise around it: NaN, which would show in every sum that reads it.
pub struct Data<E> {
    pub values: Vec<E>,
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

impl<E: Element> Data<E> {
    pub fn new(rng: &mut SplitMix64, rows: usize, cols: usize, gap: usize) -> Self {
        let stride = cols + gap;
        let mut values = vec![E::store(f32::NAN); gap + rows * stride];
        for r in 0..rows {
            for c in 0..cols {
                values[gap + r * stride + c] = E::store(rng.between(-1.0, 1.0) as f32);
            }
        }
        Data { values, rows, cols, stride }
    }

    fn gap(&self) -> usize {
        self.stride - self.cols
    }

    pub fn mat(&self) -> Mat<E> {
        Mat::new(self.values.as_ptr().wrapping_add(self.gap()), self.rows, self.cols, self.stride)
    }

    pub fn mat_mut(&mut self) -> MatMut<E> {
        let gap = self.gap();
        MatMut::new(self.values.as_mut_ptr().wrapping_add(gap), self.rows, self.cols, self.stride)
    }

    pub fn set(&mut self, (r, c): (usize, usize), x: E) {
        let at = self.gap() + r * self.stride + c;
        self.values[at] = x;
    }

    pub fn at(&self, r: usize, c: usize) -> f64 {
        f64::from(self.values[self.gap() + r * self.stride + c].load())
    }
}

/// Calls `f` with every set of this processor, and prints the others.
pub fn each_set(f: impl Fn(&Isa)) {
    for name in isa::KNOWN {
        match isa::available().contains(name) {
            true => f(&Isa::choose(Some(name), None).unwrap()),
            false => eprintln!("NOT RUN: {name}, which this processor lacks"),
        }
    }
}

const ALPHA: f32 = 0.5;

/// Compares the product of an `m x k` and a `k x n` matrix, from each start, with exact sums; on several threads and one.
fn check<A: Element, B: Element, C: Element>(isa: &Isa, (m, n, k): (usize, usize, usize), flips: (bool, bool)) {
    let rng = &mut SplitMix64::new((m * 7 + n * 3 + k) as u64);
    let shape = |flip: bool, rows: usize, cols: usize| if flip { (cols, rows) } else { (rows, cols) };
    let ((ar, ac), (br, bc)) = (shape(flips.0, m, k), shape(flips.1, k, n));
    let (a, b) = (Data::<A>::new(rng, ar, ac, 3), Data::<B>::new(rng, br, bc, 5));
    let bias = Data::<B>::new(rng, 1, n, 0);
    let before = Data::<C>::new(rng, m, n, 7);
    let factor = |flip: bool| if flip { "transposed" } else { "plain" };
    for (name, start) in [("zero", Start::Zero), ("accumulate", Start::Accumulate), ("row", Start::Row(bias.mat()))] {
        let run = |threads: usize| {
            let mut c = Data { values: before.values.clone(), ..before };
            let (fa, fb) = (Factor { mat: a.mat(), transposed: flips.0 }, Factor { mat: b.mat(), transposed: flips.1 });
            let p = Product { c: c.mat_mut(), a: fa, b: fb, alpha: ALPHA, start };
            if threads == 0 {
                let mut scratch = vec![f32::NAN; gemm::block_len::<bf16, C>(isa, m, n, k)];
                // SAFETY: four matrices that do not overlap.
                unsafe { gemm::block(isa, &mut scratch, p) };
            } else {
                let par = Parallel::new(threads, *isa).unwrap();
                // SAFETY: as above.
                unsafe { gemm::product(&par, p) };
            }
            c
        };
        let c = run(3);
        let bits = |c: &Data<C>| c.values.iter().map(|c| c.load().to_bits()).collect::<Vec<_>>();
        let what = format!("{} {m}x{n}x{k} {} {} {name}", isa.name, factor(flips.0), factor(flips.1));
        assert!(bits(&c) == bits(&run(1)), "{what}: other bits with one thread");
        let mut found = vec![("product", &c)];
        let own = (m * n * k < 200_000).then(|| run(0));
        found.extend(own.as_ref().map(|own| ("block", own)));
        for r in 0..m {
            for col in 0..n {
                let (mut sum, mut size) = (0.0, 0.0f64);
                for t in 0..k {
                    let a = if flips.0 { a.at(t, r) } else { a.at(r, t) };
                    let b = if flips.1 { b.at(col, t) } else { b.at(t, col) };
                    sum += a * b;
                    size += (a * b).abs();
                }
                let start = match name {
                    "zero" => 0.0,
                    "accumulate" => before.at(r, col),
                    _ => bias.at(0, col),
                };
                let expected = start + f64::from(ALPHA) * sum;
                // An f32 factor may be rounded to bf16; sums are in f32; the result is rounded once.
                let mixed = if is_f32::<A>() || is_f32::<B>() { 1.0 / 256.0 } else { 0.0 };
                let rounded = if is_f32::<C>() { 0.0 } else { expected.abs() / 256.0 };
                let limit = (mixed + 4e-7 * (k as f64).sqrt().max(1.0)) * (size + start.abs()) + rounded + 1e-30;
                for (function, found) in &found {
                    let found = found.at(r, col);
                    let error = (found - expected).abs();
                    assert!(
                        error <= limit,
                        "{what} {function} [{r}, {col}]: {found}, expected {expected}, limit {limit:e}"
                    );
                }
            }
        }
        // The noise around the result is as it was.
        let gaps = |d: &Data<C>| d.values.iter().filter(|v| v.load().is_nan()).count();
        let c = run(2);
        assert_eq!(gaps(&c), gaps(&before), "{what}");
    }
}

pub const FLIPS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// Catches wrong edges of blocks, wrong pairs at an odd depth, reads outside a factor (NaN), a start that is added twice, and a
/// transposed product that is written untransposed.
#[test]
fn products_are_exact_sums_of_the_rounded_factors() {
    let sizes = [
        (1, 1, 1),
        (2, 3, 1),
        (5, 7, 33),
        (16, 16, 32),
        (17, 40, 31),
        (32, 64, 96),
        (1, 130, 64),
        (130, 1, 65),
        (49, 33, 64),
        (3, 5, 0),
        (70, 90, 127),
    ];
    each_set(|isa| {
        for size in sizes {
            for flips in FLIPS {
                check::<bf16, bf16, bf16>(isa, size, flips);
                check::<bf16, bf16, f32>(isa, size, flips);
                check::<f32, bf16, f32>(isa, size, flips);
                check::<bf16, f32, bf16>(isa, size, flips);
            }
        }
    });
}

/// Catches chunks of columns, rows and terms that are left out or added twice.
#[test]
fn products_larger_than_what_is_packed_at_a_time_are_whole() {
    each_set(|isa| {
        for flips in FLIPS {
            check::<bf16, bf16, bf16>(isa, (33, 40, DEPTH + 40), flips);
            check::<bf16, bf16, f32>(isa, (33, 40, 2 * DEPTH + 1), flips);
            // The left factor is read in place.
            check::<bf16, bf16, bf16>(isa, (33, 40, DEPTH + 64), flips);
            check::<bf16, bf16, f32>(isa, (49, 40, 2 * DEPTH), flips);
            check::<bf16, bf16, bf16>(isa, (HEIGHT + 49, 4, DEPTH + 32), flips);
            check::<bf16, bf16, bf16>(isa, (20, WIDTH + 50, 64), flips);
            check::<bf16, bf16, f32>(isa, (HEIGHT + 50, 20, 33), flips);
            check::<bf16, bf16, bf16>(isa, (HEIGHT + 50, WIDTH + 50, 3), flips);
        }
    });
}

/// Prints GFLOP/s at the shapes of the project's table: `cargo test --release -p backend-candle --lib speed -- --ignored --nocapture`.
#[test]
#[ignore = "measures; it checks nothing"]
fn speed_of_products() {
    speed::<bf16>("bf16");
    speed::<f32>("f32");
}

fn speed<E: Element>(of: &str) {
    each_set(|isa| {
        for (m, n, k) in [
            (2048, 384, 384),
            (2048, 1024, 384),
            (2048, 4096, 384),
            (768, 3072, 1024),
            (768, 128, 128),
            (16, 4096, 1024),
        ] {
            for (what, flips) in [("x w^T", (false, true)), ("dy w", (false, false)), ("dy^T x", (true, false))] {
                let shape = |flip: bool, rows: usize, cols: usize| if flip { (cols, rows) } else { (rows, cols) };
                let rng = &mut SplitMix64::new(1);
                let ((ar, ac), (br, bc)) = (shape(flips.0, m, k), shape(flips.1, k, n));
                let (a, b) = (Data::<E>::new(rng, ar, ac, 0), Data::<E>::new(rng, br, bc, 0));
                let mut c = Data::<E>::new(rng, m, n, 0);
                let mut sums = Data::<f32>::new(rng, m, n, 0);
                let best = [1, 2].map(|threads| {
                    let par = Parallel::new(threads, *isa).unwrap();
                    let mut best = f64::MAX;
                    let began = std::time::Instant::now();
                    while began.elapsed().as_millis() < 300 {
                        let start = std::time::Instant::now();
                        let (a, b) = (
                            Factor { mat: a.mat(), transposed: flips.0 },
                            Factor { mat: b.mat(), transposed: flips.1 },
                        );
                        let (zero, accumulate) = (Start::Zero, Start::Accumulate);
                        // SAFETY: matrices that do not overlap.
                        unsafe {
                            if flips.0 {
                                let c = sums.mat_mut();
                                gemm::product(&par, Product { c, a, b, alpha: 1.0, start: accumulate });
                            } else {
                                gemm::product(&par, Product { c: c.mat_mut(), a, b, alpha: 1.0, start: zero });
                            }
                        }
                        best = best.min(start.elapsed().as_secs_f64());
                    }
                    2.0 * (m * n * k) as f64 / best / 1e9
                });
                println!(
                    "{:11} {of:4} {m:5} x {n:5} x {k:5} {what:7} GFLOP/s with 1 thread {:6.0}, with 2 {:6.0}",
                    isa.name, best[0], best[1]
                );
            }
        }
    });
}
