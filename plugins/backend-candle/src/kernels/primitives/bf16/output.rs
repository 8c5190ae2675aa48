//! Writing sums in f32 to a result in f32 or bf16.

use super::block::{BLOCK, Dot};
use crate::kernels::primitives::{
    element::Element,
    factor::Start,
    lines::{prefetch, write_row},
    operand::MatMut,
};

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

/// The sums of a block.
#[repr(align(64))]
pub struct Sums(pub [f32; BLOCK * BLOCK]);
