//! Packed panels and tiles of the result, and their code for an instruction set.

#[cfg(target_arch = "x86_64")]
use super::{avx512, avx512_pack};
use super::{panel::Panel, vectors};
use crate::kernels::primitives::{
    factor::{Side, Start},
    isa::Isa,
};

/// Panels of both factors and their number of terms.
#[derive(Clone, Copy)]
pub struct Sums {
    /// For each term the rows of a panel, then floats that do not count.
    pub left: *const f32,
    /// For each term the columns of a panel; aligned to 64 bytes for AVX-512.
    pub right: *const f32,
    /// Terms.
    pub terms: usize,
}

/// The rows of a tile of the left factor and its columns of the right one, where they are; distances in floats.
#[derive(Clone, Copy)]
pub struct InPlace {
    /// The first term of the first row.
    pub left: *const f32,
    /// From row to row.
    pub left_line: usize,
    /// From term to term.
    pub left_term: usize,
    /// The first term of the first column; columns are adjacent.
    pub right: *const f32,
    /// From term to term.
    pub right_term: usize,
    /// Terms.
    pub terms: usize,
}

/// Where the sums of a tile go: `c = start + alpha sums`.
pub struct Tile {
    /// The first element.
    pub c: *mut f32,
    /// Floats from row to row.
    pub stride: usize,
    /// Rows that are written, at least 1.
    pub rows: usize,
    /// Columns that are written, at least 1.
    pub cols: usize,
    /// Factor of the sums.
    pub alpha: f32,
    /// What they are added to; a row begins at the tile's first column.
    pub start: Start,
}

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
