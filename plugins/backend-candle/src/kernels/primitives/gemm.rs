//! Matrix products: the `gemm` library on fixed tiles of the result, with the microkernels of the session's instruction
//! set.
//!
//! The library is called single-threaded per tile, and tiles depend only on sizes, so every element is summed in the same order
//! for any number of threads.

use super::{
    bf16,
    element::{Element, is_f32},
    isa::Isa,
    operand::{Mat, MatMut},
    parallel::Parallel,
};

/// One factor of a product: a matrix, or its transpose.
#[derive(Clone, Copy)]
pub struct Factor<E = f32> {
    /// The matrix.
    pub mat: Mat<E>,
    /// Whether the factor is its transpose.
    pub transposed: bool,
}

/// The matrix, not transposed.
pub fn plain<E>(mat: Mat<E>) -> Factor<E> {
    Factor { mat, transposed: false }
}

/// Its transpose.
pub fn transposed<E>(mat: Mat<E>) -> Factor<E> {
    Factor { mat, transposed: true }
}

impl<E: Element> Factor<E> {
    /// Rows of the factor.
    pub fn rows(&self) -> usize {
        if self.transposed { self.mat.cols } else { self.mat.rows }
    }

    /// Columns of the factor.
    pub fn cols(&self) -> usize {
        if self.transposed { self.mat.rows } else { self.mat.cols }
    }

    /// (row stride, column stride).
    fn strides(&self) -> (isize, isize) {
        let stride = self.mat.stride as isize;
        if self.transposed { (1, stride) } else { (stride, 1) }
    }

    /// Some rows of the factor.
    pub fn row_block(&self, from: usize, len: usize) -> Factor<E> {
        let mat = if self.transposed {
            self.mat.block(0, self.mat.rows, from, len)
        } else {
            self.mat.block(from, len, 0, self.mat.cols)
        };
        Factor { mat, ..*self }
    }

    /// Some columns of the factor.
    pub fn col_block(&self, from: usize, len: usize) -> Factor<E> {
        let mat = if self.transposed {
            self.mat.block(from, len, 0, self.mat.cols)
        } else {
            self.mat.block(0, self.mat.rows, from, len)
        };
        Factor { mat, ..*self }
    }

    /// The factor of f32 that it is, for code that has compared the types.
    fn as_f32(&self) -> Factor {
        Factor { mat: self.mat.cast(), transposed: self.transposed }
    }
}

/// The initial value of the result.
#[derive(Clone, Copy)]
pub enum Start<E = f32> {
    /// Zero.
    Zero,
    /// Its present content.
    Accumulate,
    /// The same row in all rows.
    Row(Mat<E>),
}

impl<E: Element> Start<E> {
    /// That of some columns.
    pub fn columns(self, from: usize, len: usize) -> Self {
        match self {
            Start::Row(row) => Start::Row(row.block(0, 1, from, len)),
            other => other,
        }
    }

    fn as_f32(self) -> Start {
        match self {
            Start::Zero => Start::Zero,
            Start::Accumulate => Start::Accumulate,
            Start::Row(row) => Start::Row(row.cast()),
        }
    }
}

/// Minimum work of a tile, in multiply-adds: about 20 microseconds, below which waking a thread for it does not pay.
const TILE_WORK: usize = 1 << 20;
/// Number of tiles of a large product: several per thread, so that threads finish together.
const TILES: usize = 16;

/// `c = start + alpha a b`, split into tiles that the threads share. If a factor is bf16, an f32 one may be rounded to bf16.
///
/// # Safety
/// The buffers live, no other code accesses `c` or writes `a` or `b`, and neither overlaps `c`.
pub unsafe fn product<A: Element, B: Element, C: Element, R: Element>(
    par: &Parallel,
    c: MatMut<C>,
    a: Factor<A>,
    b: Factor<B>,
    alpha: f32,
    start: Start<R>,
) {
    match C::as_f32(c) {
        // SAFETY: guaranteed by the caller. Beside two factors of f32 a row of f32 is the only one.
        Some(c) if is_f32::<A>() && is_f32::<B>() => unsafe {
            product_f32(par, c, a.as_f32(), b.as_f32(), alpha, start.as_f32());
        },
        // SAFETY: guaranteed by the caller.
        _ => unsafe { bf16::product(par, c, a, b, alpha, start) },
    }
}

unsafe fn product_f32(par: &Parallel, c: MatMut, a: Factor, b: Factor, alpha: f32, start: Start) {
    let (m, n, k) = (c.rows, c.cols, a.cols());
    if m == 0 || n == 0 {
        return;
    }
    let (tm, tn) = tile(m, n, k);
    let (across, down) = (n.div_ceil(tn), m.div_ceil(tm));
    par.run(across * down, m * n * k / 50, |t| {
        let (i, j) = (t / across * tm, t % across * tn);
        let (h, w) = (tm.min(m - i), tn.min(n - j));
        let c = c.block(i, h, j, w);
        let start = start.columns(j, w);
        // SAFETY: tiles are disjoint; the rest is guaranteed by the caller.
        unsafe { block_f32(par.isa(), c, a.row_block(i, h), b.col_block(j, w), alpha, start) };
    });
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

/// `c = start + alpha a b` on the calling thread, with [`block_len`] floats of scratch.
///
/// # Safety
/// As [`product`].
#[inline]
pub unsafe fn block<A: Element, B: Element, C: Element, R: Element>(
    isa: &Isa,
    scratch: &mut [f32],
    c: MatMut<C>,
    a: Factor<A>,
    b: Factor<B>,
    alpha: f32,
    start: Start<R>,
) {
    match C::as_f32(c) {
        // SAFETY: as in `product`.
        Some(c) if is_f32::<A>() && is_f32::<B>() => unsafe {
            block_f32(isa, c, a.as_f32(), b.as_f32(), alpha, start.as_f32());
        },
        // SAFETY: guaranteed by the caller.
        _ => unsafe { bf16::block(isa, scratch, c, a, b, alpha, start) },
    }
}

/// Floats of memory that [`product`] needs for factors in `E`, beyond what the library uses: of one thread, or shared by all.
pub fn product_len<E: Element>(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    if is_f32::<E>() { 0 } else { bf16::product_len(isa, m, n, k) }
}

/// Floats of scratch that [`block`] needs for factors in `E`.
pub fn block_len<E: Element>(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    if is_f32::<E>() { 0 } else { bf16::block_len(isa, m, n, k) }
}

#[inline]
unsafe fn block_f32(isa: &Isa, c: MatMut, a: Factor, b: Factor, alpha: f32, start: Start) {
    debug_assert!(a.rows() == c.rows && b.cols() == c.cols && a.cols() == b.rows());
    let accumulate = match start {
        Start::Zero => false,
        Start::Accumulate => true,
        Start::Row(row) => {
            for r in 0..c.rows {
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
            [c.rows, c.cols, a.cols()],
            (c.ptr(), 1, c.stride as isize, accumulate),
            (a.mat.ptr(), a_cs, a_rs),
            (b.mat.ptr(), b_cs, b_rs),
            [1.0, alpha],
        );
    }
}
