//! The product compared with sums in f64.

use super::{
    block, block_len, product,
    product::{DEPTH, PART, WIDTH},
};
use crate::kernels::primitives::{
    bf16::tests::{Data, FLIPS, each_set},
    factor::{Factor, Product, Start},
    gemm,
    isa::{self, Isa},
    parallel::Parallel,
};
use telos_random::SplitMix64;

const ALPHA: f32 = 0.75;

/// Both factors, a bias, and what the result holds before.
struct Case {
    flips: (bool, bool),
    a: Data<f32>,
    b: Data<f32>,
    bias: Data<f32>,
    before: Data<f32>,
}

impl Case {
    fn new((m, n, k): (usize, usize, usize), flips: (bool, bool)) -> Case {
        let rng = &mut SplitMix64::new((m * 7 + n * 3 + k) as u64);
        let shape = |flip: bool, rows: usize, cols: usize| if flip { (cols, rows) } else { (rows, cols) };
        let ((ar, ac), (br, bc)) = (shape(flips.0, m, k), shape(flips.1, k, n));
        let (a, b) = (Data::new(rng, ar, ac, 3), Data::new(rng, br, bc, 5));
        Case { flips, a, b, bias: Data::new(rng, 1, n, 0), before: Data::new(rng, m, n, 7) }
    }

    fn starts(&self) -> [(&'static str, Start); 3] {
        [("zero", Start::Zero), ("accumulate", Start::Accumulate), ("row", Start::Row(self.bias.mat()))]
    }

    /// The result and the noise around it.
    fn run(&self, start: Start, f: impl Fn(Product)) -> Data<f32> {
        let mut c = Data { values: self.before.values.clone(), ..self.before };
        let a = Factor { mat: self.a.mat(), transposed: self.flips.0 };
        let b = Factor { mat: self.b.mat(), transposed: self.flips.1 };
        f(Product { c: c.mat_mut(), a, b, alpha: ALPHA, start });
        c
    }

    fn terms(&self, r: usize, c: usize) -> impl Iterator<Item = (f64, f64)> {
        let k = if self.flips.0 { self.a.rows } else { self.a.cols };
        (0..k).map(move |t| {
            let a = if self.flips.0 { self.a.at(t, r) } else { self.a.at(r, t) };
            (a, if self.flips.1 { self.b.at(c, t) } else { self.b.at(t, c) })
        })
    }
}

fn on(isa: Isa, threads: usize) -> impl Fn(Product) {
    let par = Parallel::new(threads, isa).unwrap();
    // SAFETY: matrices that do not overlap.
    move |p| unsafe { product(&par, p) }
}

/// On the calling thread, with no more scratch than was asked for.
fn here(isa: Isa) -> impl Fn(Product) {
    move |p| {
        let (m, n, k) = p.sizes();
        let mut scratch = vec![f32::NAN; block_len(&isa, m, n, k)];
        // SAFETY: matrices that do not overlap.
        unsafe { block(&isa, &mut scratch, p) }
    }
}

fn bits(data: &Data<f32>) -> Vec<u32> {
    data.values.iter().map(|x| x.to_bits()).collect()
}

/// Compares the product with exact sums from each start; on one, two, three and many threads, and as a block.
fn check(isa: Isa, (m, n, k): (usize, usize, usize), flips: (bool, bool)) {
    let case = Case::new((m, n, k), flips);
    for (name, start) in case.starts() {
        let what = format!("{} {m}x{n}x{k} {flips:?} {name}", isa.name);
        let c = case.run(start, on(isa, 1));
        for threads in [2, 3, 24] {
            assert!(bits(&c) == bits(&case.run(start, on(isa, threads))), "{what}: other bits with {threads} threads");
        }
        assert!(bits(&c) == bits(&case.run(start, here(isa))), "{what}: other bits as a block");
        for r in 0..m {
            for col in 0..n {
                let (sum, size) = case.terms(r, col).fold((0.0, 0.0), |(s, a), (x, y)| (s + x * y, a + (x * y).abs()));
                let start = match name {
                    "zero" => 0.0,
                    "accumulate" => case.before.at(r, col),
                    _ => case.bias.at(0, col),
                };
                let (found, expected) = (c.at(r, col), start + f64::from(ALPHA) * sum);
                let limit = 4e-7 * (k as f64).sqrt().max(1.0) * (size + start.abs()) + 1e-30;
                assert!((found - expected).abs() <= limit, "{what} [{r}, {col}]: {found}, expected {expected}");
            }
        }
        let noise = |d: &Data<f32>| d.values.iter().filter(|x| x.is_nan()).count();
        assert_eq!(noise(&c), noise(&case.before), "{what}: noise around the result");
    }
}

/// Catches wrong edges of panels and tiles, reads outside a factor (NaN), a start that is added twice, and a wrong transpose.
#[test]
fn products_are_exact_sums() {
    let sizes = [
        (1, 1, 1),
        (1, 1, 0),
        (5, 40, 0),
        (11, 31, 3),
        (12, 32, 4),
        (13, 33, 5),
        (2, 49, 17),
        (23, 16, 15),
        (24, 17, 16),
        (25, 63, 31),
        (31, 64, 33),
        (37, 65, 7),
        (67, 127, 61),
        (1, 130, 64),
        (130, 1, 65),
        (400, 300, 20),
    ];
    each_set(|isa| {
        for size in sizes {
            FLIPS.into_iter().for_each(|flips| check(*isa, size, flips));
        }
    });
}

/// Catches columns, rows and terms that are left out or added twice.
#[test]
fn products_larger_than_what_is_packed_at_a_time_are_whole() {
    each_set(|isa| {
        for flips in FLIPS {
            check(*isa, (13, 35, PART), flips);
            check(*isa, (13, 35, PART + 1), flips);
            check(*isa, (37, 70, DEPTH + 3), flips);
            check(*isa, (33, 40, 2 * DEPTH + PART + 1), flips);
            check(*isa, (50, WIDTH + 33, 9), flips);
            check(*isa, (1100, 2 * WIDTH + 1, 2), flips);
        }
    });
}

/// Catches a sum whose order depends on its place or on the sizes of the result.
#[test]
fn the_order_of_a_sum_depends_only_on_its_terms() {
    each_set(|isa| the_order_is_the_same(*isa));
}

fn the_order_is_the_same(isa: Isa) {
    for flips in FLIPS {
        let case = Case::new((300, 290, 700), flips);
        for (name, start) in case.starts() {
            let whole = case.run(start, on(isa, 2));
            let part = case.run(start, |p| on(isa, 2)(p.tile((150, 41), (17, 77))));
            for r in 0..41 {
                for c in 0..77 {
                    let (whole, part) = (whole.at(150 + r, 17 + c), part.at(150 + r, 17 + c));
                    assert_eq!(whole.to_bits(), part.to_bits(), "{flips:?} {name} [{r}, {c}]");
                }
            }
        }
    }
}

/// Catches infinities that reach sums of other rows or columns, and subnormal numbers that are flushed.
#[test]
fn special_numbers_propagate_as_in_a_sum() {
    each_set(|isa| special_numbers_propagate(*isa));
}

fn special_numbers_propagate(isa: Isa) {
    for flips in FLIPS {
        let mut case = Case::new((30, 50, 20), flips);
        let tiny = f32::from_bits(3);
        let at = |flip: bool, i: usize, j: usize| if flip { (j, i) } else { (i, j) };
        let mut set = |i, j, x| case.a.set(at(flips.0, i, j), x);
        (0..20).for_each(|t| set(3, t, if t == 4 { tiny } else { 0.0 }));
        set(29, 7, f32::INFINITY);
        set(12, 2, f32::NAN);
        case.b.set(at(flips.1, 7, 49), 0.0);
        (0..50).for_each(|c| case.b.set(at(flips.1, 4, c), 2.0));
        let c = case.run(Start::Zero, on(isa, 1));
        for r in 0..30 {
            for col in 0..50 {
                let (found, sum) = (c.at(r, col), case.terms(r, col).map(|(a, b)| a * b).sum::<f64>());
                assert_eq!(found.is_nan(), sum.is_nan(), "[{r}, {col}]");
                assert_eq!(found.is_infinite(), sum.is_infinite(), "[{r}, {col}]");
                assert!(r != 3 || found == f64::from(ALPHA * (2.0 * tiny)), "[{r}, {col}]: {found:e}");
            }
        }
    }
}

/// Catches a set that computes f32 by other code than the others with AVX-512.
#[test]
fn sets_with_avx512_give_the_same_bits() {
    let case = Case::new((260, 210, 230), (false, true));
    let mut found: Option<(&str, Vec<u32>)> = None;
    for name in ["avx512", "avx512bf16", "amx"].into_iter().filter(|name| isa::available().contains(name)) {
        let par = Parallel::new(2, Isa::choose(Some(name), None).unwrap()).unwrap();
        // SAFETY: matrices that do not overlap.
        let c = bits(&case.run(Start::Accumulate, |p| unsafe { gemm::product(&par, p) }));
        let (first, expected) = found.get_or_insert_with(|| (name, c.clone()));
        assert!(*expected == c, "{name} differs from {first}");
    }
}

/// Catches a name with the code of another set: for (1 + 2^-12)^2 - 1, the fused product keeps 2^-24.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[test]
fn only_the_baseline_rounds_products() {
    each_set(|isa| {
        let mut case = Case::new((13, 35, 2), (false, false));
        let x = 1.0 + 1.0f32 / 4096.0;
        (0..13).for_each(|r| [-1.0, x].into_iter().enumerate().for_each(|(t, a)| case.a.set((r, t), a)));
        (0..35).for_each(|c| [1.0 + 1.0 / 2048.0, x].into_iter().enumerate().for_each(|(t, b)| case.b.set((t, c), b)));
        let fused = case.run(Start::Zero, on(*isa, 1)).at(12, 34) == f64::from(ALPHA) / 4096.0 / 4096.0;
        assert_eq!(fused, isa.name != "baseline", "{}", isa.name);
    });
}
