//! The code that packs panels and computes tiles, by instruction set.

#[cfg(target_arch = "x86_64")]
use super::{avx512, avx512_pack};
use super::{
    panel::{Panel, Sums, Tile},
    vectors,
};
use crate::kernels::primitives::{factor::Side, isa::Isa};

/// Computes a tile from two packed panels.
///
/// # Safety
/// Both panels can be read; no other code accesses the tile.
pub unsafe fn compute(isa: &Isa, sums: Sums, tile: &Tile) {
    #[cfg(target_arch = "x86_64")]
    if isa.avx512 {
        // SAFETY: the caller's; the set has AVX-512.
        return unsafe { avx512::tile(sums, tile) };
    }
    // SAFETY: the caller's.
    unsafe { vectors::tile(isa, sums, tile) };
}

/// Packs rows of the left factor: panels of `panel.left` floats per term, of which `panel.rows` count. A range is a pair of first and
/// number.
///
/// # Safety
/// Rows and terms lie inside the factor; `to` is aligned to 64 bytes, and the panels fit there.
pub unsafe fn pack_rows(
    isa: &Isa,
    panel: Panel,
    side: &Side<f32>,
    rows: (usize, usize),
    terms: (usize, usize),
    to: *mut f32,
) {
    #[cfg(target_arch = "x86_64")]
    if isa.avx512 {
        // SAFETY: the caller's; the set has AVX-512.
        return unsafe { avx512_pack::rows(side, rows, terms, to) };
    }
    // SAFETY: the caller's.
    unsafe { vectors::pack(isa, side, rows, terms, (panel.rows, panel.left), to) };
}

/// Packs columns of the right factor: panels of `panel.cols` floats per term.
///
/// # Safety
/// As [`pack_rows`].
pub unsafe fn pack_cols(
    isa: &Isa,
    panel: Panel,
    side: &Side<f32>,
    cols: (usize, usize),
    terms: (usize, usize),
    to: *mut f32,
) {
    #[cfg(target_arch = "x86_64")]
    if isa.avx512 {
        // SAFETY: the caller's; the set has AVX-512.
        return unsafe { avx512_pack::columns(side, cols, terms, to) };
    }
    // SAFETY: the caller's.
    unsafe { vectors::pack(isa, side, cols, terms, (panel.cols, panel.cols), to) };
}
