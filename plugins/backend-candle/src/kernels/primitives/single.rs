//! Products of f32: large ones by AVX-512 (`avx512`) where the session's instruction set has it, those of few rows in place (`few`),
//! the others by the `gemm` library on fixed tiles of the result, with the set's microkernels.
//!
//! The library is called single-threaded per tile, and tiles depend only on sizes, so every element is summed in the same order
//! for any number of threads.

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::{
    factor::{Product, Start},
    few,
    isa::Isa,
    parallel::Parallel,
};

/// Minimum work of a tile, in multiply-adds: about 20 microseconds, below which waking a thread for it does not pay.
const TILE_WORK: usize = 1 << 20;
/// Number of tiles of a large product: several per thread, so that threads finish together.
const TILES: usize = 16;

/// Computes the product, split into tiles that the threads share.
///
/// # Safety
/// The buffers live, no other code accesses `c` or writes `a` or `b`, and neither overlaps `c`.
pub unsafe fn product(par: &Parallel, p: Product) {
    let (m, n, k) = p.sizes();
    if m == 0 || n == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if packs(par.isa(), m, n, k) {
        // SAFETY: the caller's; the set has AVX-512.
        return unsafe { avx512::product(par, p) };
    }
    if few::suits(par.isa(), &p) {
        // SAFETY: the caller's.
        return unsafe { few::product(par, p) };
    }
    // SAFETY: the caller's.
    unsafe { by_library(par, p) };
}

/// As [`product`], by the library.
///
/// # Safety
/// As [`product`].
pub unsafe fn by_library(par: &Parallel, p: Product) {
    let (m, n, k) = p.sizes();
    let (tm, tn) = tile(m, n, k);
    let (across, down) = (n.div_ceil(tn), m.div_ceil(tm));
    par.run(across * down, m * n * k / 50, |t| {
        let (i, j) = (t / across * tm, t % across * tn);
        // SAFETY: tiles are disjoint; the rest is guaranteed by the caller.
        unsafe { block(par.isa(), p.tile((i, tm.min(m - i)), (j, tn.min(n - j)))) };
    });
}

/// Whether the factors are packed for AVX-512.
#[cfg(target_arch = "x86_64")]
fn packs(isa: &Isa, m: usize, n: usize, k: usize) -> bool {
    isa.avx512 && avx512::suits(m, n, k)
}

/// Floats of scratch that [`product`] needs, without the library's own.
pub fn product_len(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if packs(isa, m, n, k) {
        return avx512::product_len(m, n, k);
    }
    let _ = (isa, m, n, k);
    0
}

/// Rows and columns of a tile. Depends only on sizes.
fn tile(m: usize, n: usize, k: usize) -> (usize, usize) {
    let (mut tm, mut tn) = (m, n);
    let tiles = |tm: usize, tn: usize| m.div_ceil(tm) * n.div_ceil(tn);
    while tiles(tm, tn) < TILES && tm * tn * k >= 2 * TILE_WORK {
        // The library packs its left operand, here `b`, once per tile: fewer, taller tiles pack less.
        if tn > 64 && (tn >= tm / 2 || tm <= 96) {
            tn = tn.div_ceil(2).next_multiple_of(64);
        } else if tm > 96 {
            tm = tm.div_ceil(2).next_multiple_of(6);
        } else {
            break;
        }
    }
    (tm, tn)
}

/// Computes the product on the calling thread.
///
/// # Safety
/// As [`product`].
#[inline]
pub unsafe fn block(isa: &Isa, p: Product) {
    let (m, n, k) = p.sizes();
    let Product { c, a, b, alpha, start } = p;
    let accumulate = match start {
        Start::Zero => false,
        Start::Accumulate => true,
        Start::Row(row) => {
            for r in 0..m {
                // SAFETY: guaranteed by the caller.
                unsafe { c.row(r).copy_from_slice(row.row(0)) };
            }
            true
        }
    };
    let ((a_rs, a_cs), (b_rs, b_cs)) = (a.strides(), b.strides());
    // SAFETY: pointers and strides describe checked views; the caller guarantees that they live and do not overlap.
    unsafe {
        (isa.multiply)(
            [m, n, k],
            (c.ptr(), 1, c.stride as isize, accumulate),
            (a.mat.ptr(), a_cs, a_rs),
            (b.mat.ptr(), b_cs, b_rs),
            [1.0, alpha],
        );
    }
}
