//! Products with a factor in bf16, accumulated in f32.
//!
//! Where the processor multiplies bf16 (sets `amx` and `avx512bf16`), factors are packed into blocks (`pack`) once per call, and
//! blocks of 32 x 32 sums are computed from them and written to the result. A factor on the left whose terms are adjacent is read
//! in place. Elsewhere parts of the factors are converted to f32 for the present product (`convert`).
//!
//! The order of a sum depends only on the number of its terms and on the set: these sets cut it every [`packed::DEPTH`] terms, the
//! others every `convert::DEPTH` and as a product of f32.

#[cfg(target_arch = "x86_64")]
pub mod amx;
pub mod block;
mod convert;
#[cfg(target_arch = "x86_64")]
pub mod dot;
mod output;
#[cfg(target_arch = "x86_64")]
pub mod pack;
mod packed;
#[cfg(test)]
pub mod tests;

use super::{element::Element, factor::Product, isa::Isa, parallel::Parallel};
use packed::{Place, either, shared_len};

/// Computes the product, split into tiles that the threads share.
///
/// # Safety
/// As [`super::gemm::product`].
pub unsafe fn product<A: Element, B: Element, C: Element>(par: &Parallel, p: Product<A, B, C>) {
    let (m, n, k) = p.sizes();
    // SAFETY: the caller's.
    unsafe {
        match par.isa().dot {
            Some(dot) => {
                par.with_shared(shared_len::<C>(m, n, k), |memory| either(Place::Shared(par), dot, memory, p));
            }
            None => convert::product(par, p),
        }
    }
}

/// Computes the product on the calling thread, with [`block_len`] floats of scratch.
///
/// # Safety
/// As [`super::gemm::product`].
pub unsafe fn block<A: Element, B: Element, C: Element>(isa: &Isa, scratch: &mut [f32], p: Product<A, B, C>) {
    // SAFETY: the caller's.
    unsafe {
        match isa.dot {
            Some(dot) => either(Place::Here(isa), dot, scratch, p),
            None => convert::block(isa, scratch, p),
        }
    }
}

/// Floats of scratch that [`product`] needs for a result in `C`.
pub fn product_len<C: Element>(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    if isa.dot.is_some() { shared_len::<C>(m, n, k) } else { convert::product_len(isa, m, n, k) }
}

/// Floats of scratch that [`block`] needs for a result in `C`.
pub fn block_len<C: Element>(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    if isa.dot.is_some() { shared_len::<C>(m, n, k) } else { convert::block_len(isa, m, n, k) }
}
