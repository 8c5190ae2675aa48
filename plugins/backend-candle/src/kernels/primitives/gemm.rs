//! Matrix products, whose factors and results are f32 or bf16.

use super::{
    bf16,
    element::{Element, is_f32},
    isa::Isa,
    operand::MatMut,
    parallel::Parallel,
    single,
};

pub use super::factor::{Factor, Start, plain, transposed};

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
    match c.as_f32() {
        // SAFETY: guaranteed by the caller. Beside two factors of f32 a row of f32 is the only one.
        Some(c) if is_f32::<A>() && is_f32::<B>() => unsafe {
            single::product(par, c, a.as_f32(), b.as_f32(), alpha, start.as_f32());
        },
        // SAFETY: guaranteed by the caller.
        _ => unsafe { bf16::product(par, c, a, b, alpha, start) },
    }
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
    match c.as_f32() {
        // SAFETY: as in `product`.
        Some(c) if is_f32::<A>() && is_f32::<B>() => unsafe {
            single::block(isa, c, a.as_f32(), b.as_f32(), alpha, start.as_f32());
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
