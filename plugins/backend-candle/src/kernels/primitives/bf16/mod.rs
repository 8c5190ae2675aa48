//! Products with a factor in bf16, accumulated in f32.
//!
//! Where the processor multiplies bf16 (sets `amx` and `avx512bf16`), factors are packed into blocks (`pack`) once per call, and
//! blocks of 32 x 32 sums are computed from them and written to the result. A factor on the left whose terms are adjacent is read
//! in place. Elsewhere parts of the factors are converted to f32 for the present product (`convert`).
//!
//! The order of a sum depends only on the number of its terms and on the set: it is cut only where [`packed::DEPTH`] says. Blocks,
//! tiles and threads do not change it.

#[cfg(target_arch = "x86_64")]
pub mod amx;
pub mod block;
mod convert;
#[cfg(target_arch = "x86_64")]
pub mod dot;
mod output;
#[cfg(target_arch = "x86_64")]
mod pack;
mod packed;
#[cfg(test)]
mod tests;

use super::{
    element::Element,
    factor::{Factor, Start},
    isa::Isa,
    operand::MatMut,
    parallel::Parallel,
};
use packed::{Place, either, shared_len};

/// `c = start + alpha a b`, split into tiles that the threads share.
///
/// # Safety
/// As [`super::gemm::product`].
pub unsafe fn product<A: Element, B: Element, C: Element, R: Element>(
    par: &Parallel,
    c: MatMut<C>,
    a: Factor<A>,
    b: Factor<B>,
    alpha: f32,
    start: Start<R>,
) {
    // SAFETY: the caller's.
    unsafe {
        match par.isa().dot {
            Some(_) => par.with_shared(shared_len(c.rows, c.cols, a.cols()), |memory| {
                either(Place::Shared(par), memory, c, a, b, alpha, start);
            }),
            None => convert::product(par, c, a, b, alpha, start),
        }
    }
}

/// `c = start + alpha a b` on the calling thread, with [`block_len`] floats of scratch.
///
/// # Safety
/// As [`super::gemm::product`].
pub unsafe fn block<A: Element, B: Element, C: Element, R: Element>(
    isa: &Isa,
    scratch: &mut [f32],
    c: MatMut<C>,
    a: Factor<A>,
    b: Factor<B>,
    alpha: f32,
    start: Start<R>,
) {
    // SAFETY: the caller's.
    unsafe {
        match isa.dot {
            Some(_) => either(Place::Here(isa), scratch, c, a, b, alpha, start),
            None => convert::block(isa, scratch, c, a, b, alpha, start),
        }
    }
}

/// Floats of memory that [`product`] needs.
pub fn product_len(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    if isa.dot.is_some() { shared_len(m, n, k) } else { convert::product_len(m, n, k) }
}

/// Floats of scratch that [`block`] needs.
pub fn block_len(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    if isa.dot.is_some() { shared_len(m, n, k) } else { convert::block_len(m, n, k) }
}
