//! Products of f32 from packed factors.
//!
//! Columns of the right factor are packed once for all threads (`product::WIDTH` at a time); a task packs its rows of the left factor and
//! computes their sums from both (`tile`), with all columns or some of them. Packed factors are panels of adjacent terms, so the
//! processor reads them in order and from few pages. Their sizes are those of the instruction set (`panel`).
//!
//! A sum is cut into equal parts of at most `product::PART` terms, which are added to the result one after the other. So its order depends
//! only on the number of terms.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_pack;
mod block;
mod panel;
mod product;
#[cfg(test)]
mod tests;
mod tile;
mod vectors;

pub use block::{block, block_len};
pub use product::{product, product_len};
