//! Products of f32: those of few rows or columns in place (`few`), the others from packed factors (`packed`).
//!
//! The order of a sum depends only on the number of its terms, on which of the two modules computes it, and on the instruction set.

use super::{factor::Product, few, isa::Isa, packed, parallel::Parallel};

/// Computes the product, split into tasks that the threads share.
///
/// # Safety
/// The buffers live, no other code accesses `c` or writes `a` or `b`, and neither overlaps `c`.
pub unsafe fn product(par: &Parallel, p: Product) {
    // SAFETY: the caller's.
    unsafe {
        if few::suits(par.isa(), &p) {
            few::product(par, p);
        } else {
            packed::product(par, p);
        }
    }
}

/// Floats of scratch that [`product`] needs.
pub fn product_len(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    packed::product_len(isa, m, n, k)
}

/// Computes the product on the calling thread, with [`block_len`] floats of scratch.
///
/// # Safety
/// As [`product`].
#[inline]
pub unsafe fn block(isa: &Isa, scratch: &mut [f32], p: Product) {
    // SAFETY: the caller's.
    unsafe { packed::block(isa, scratch, p) };
}

/// Floats of scratch that [`block`] needs.
pub fn block_len(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    packed::block_len(isa, m, n, k)
}
