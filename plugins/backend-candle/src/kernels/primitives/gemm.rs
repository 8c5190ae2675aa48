//! Matrix products, whose factors and results are f32 or bf16.

use super::{
    bf16,
    element::{Element, is_f32},
    isa::Isa,
    parallel::Parallel,
    single,
};

pub use super::factor::{Product, Start, plain, transposed};

/// Computes the product, split into tiles that the threads share. If a factor is bf16, an f32 one may be rounded to bf16.
///
/// # Safety
/// The buffers live, no other code accesses `c` or writes `a` or `b`, and neither overlaps `c`.
pub unsafe fn product<A: Element, B: Element, C: Element>(par: &Parallel, p: Product<A, B, C>) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match p.as_f32() {
            Some(p) => single::product(par, p),
            None => bf16::product(par, p),
        }
    }
}

/// Computes the product on the calling thread, with [`block_len`] floats of scratch.
///
/// # Safety
/// As [`product`].
#[inline]
pub unsafe fn block<A: Element, B: Element, C: Element>(isa: &Isa, scratch: &mut [f32], p: Product<A, B, C>) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match p.as_f32() {
            Some(p) => single::block(isa, scratch, p),
            None => bf16::block(isa, scratch, p),
        }
    }
}

/// Floats of scratch that [`product`] needs for factors in `E` and a result in `C`: what the threads share, and that of one thread.
pub fn product_len<E: Element, C: Element>(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    if is_f32::<E>() { single::product_len(isa, m, n, k) } else { bf16::product_len::<C>(isa, m, n, k) }
}

/// Floats of scratch that [`block`] needs for factors in `E` and a result in `C`.
pub fn block_len<E: Element, C: Element>(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    if is_f32::<E>() { single::block_len(isa, m, n, k) } else { bf16::block_len::<C>(isa, m, n, k) }
}
