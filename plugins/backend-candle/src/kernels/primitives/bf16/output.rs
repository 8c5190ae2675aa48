//! Writing sums in f32 to a result in f32 or bf16.

use super::block::{BLOCK, Dot};
use crate::kernels::primitives::{element::Element, factor::Start, operand::MatMut};

/// The result, by rows or (for a product that is computed transposed) by columns.
pub struct Target<C, R> {
    /// The matrix.
    pub c: MatMut<C>,
    /// Factor of the sums.
    pub alpha: f32,
    /// What they are added to.
    pub start: Start<R>,
    /// Whether the product is computed transposed.
    pub flipped: bool,
}

impl<C: Element, R: Element> Target<C, R> {
    /// Brings the lines of a block into the cache while its sums are computed: rows of a large result lie on different pages, which
    /// the processor does not prefetch by itself.
    #[inline(always)]
    pub fn prefetch(&self, (i, j): (usize, usize), (rows, cols): (usize, usize)) {
        let (i, j, rows, cols) = if self.flipped { (j, i, cols, rows) } else { (i, j, rows, cols) };
        for r in i..i + rows {
            let row = self.c.ptr().wrapping_add(r * self.c.stride + j).cast_const().cast::<u8>();
            for line in (0..cols * size_of::<C>()).step_by(64) {
                prefetch(row.wrapping_add(line));
            }
        }
    }

    /// Writes the block at (`i`, `j`) of the product.
    ///
    /// # Safety
    /// No other code accesses the block.
    #[inline(always)]
    pub unsafe fn write(&self, dot: &Dot, (i, j): (usize, usize), (rows, cols): (usize, usize), sums: &mut Sums) {
        let (i, j, rows, cols) = if self.flipped {
            // SAFETY: the set's own function.
            unsafe { (dot.transpose)(&mut sums.0) };
            (j, i, cols, rows)
        } else {
            (i, j, rows, cols)
        };
        for (r, sums) in sums.0.chunks_exact(BLOCK).enumerate().take(rows) {
            // SAFETY: inside the result; the rest is the caller's.
            unsafe { write_row(self.c, i + r, j, &sums[..cols], self.alpha, self.start) };
        }
    }
}

#[inline(always)]
fn prefetch(ptr: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}

/// `c = start + alpha sums` for the part of row `row` that starts at column `col`.
///
/// # Safety
/// No other code accesses that part, which lies inside `c`.
#[inline(always)]
pub unsafe fn write_row<C: Element, R: Element>(
    c: MatMut<C>,
    row: usize,
    col: usize,
    sums: &[f32],
    alpha: f32,
    start: Start<R>,
) {
    // SAFETY: the caller's.
    let to = unsafe { c.span(row, col, sums.len()) };
    match start {
        Start::Zero => to.iter_mut().zip(sums).for_each(|(c, s)| *c = C::store(alpha * s)),
        Start::Accumulate => to.iter_mut().zip(sums).for_each(|(c, s)| *c = C::store(alpha * s + c.load())),
        Start::Row(bias) => {
            // SAFETY: a row as long as those of `c`, only read.
            let bias = unsafe { bias.span(0, col, sums.len()) };
            to.iter_mut().zip(sums).zip(bias).for_each(|((c, s), b)| *c = C::store(alpha * s + b.load()));
        }
    }
}

/// The sums of a block.
#[repr(align(64))]
pub struct Sums(pub [f32; BLOCK * BLOCK]);
