//! Panels of packed factors and tiles of the result: their sizes, and where they are.

use crate::kernels::primitives::{factor::Start, isa::Isa};

/// Sizes of an instruction set: a tile of `rows` x `cols` sums stays in its registers.
#[derive(Clone, Copy)]
pub struct Panel {
    /// Rows of a panel of the left factor.
    pub rows: usize,
    /// Columns of a panel of the right factor.
    pub cols: usize,
    /// Floats from term to term of a left panel.
    pub left: usize,
}

/// With AVX-512; a term of a left panel is a whole line of the cache.
pub const AVX512: Panel = Panel { rows: 12, cols: 32, left: 16 };
/// With AVX2: 12 of 16 registers of 8 floats.
pub const AVX2: Panel = Panel { rows: 6, cols: 16, left: 6 };
/// With NEON: 24 of 32 registers of 4 floats.
pub const NEON: Panel = Panel { rows: 12, cols: 8, left: 12 };
/// With vectors of 4 floats in 16 registers.
pub const BASELINE: Panel = Panel { rows: 6, cols: 8, left: 6 };

/// The sizes of a set.
pub fn of(isa: &Isa) -> Panel {
    match isa.name {
        _ if isa.avx512 => AVX512,
        "avx2" => AVX2,
        "neon" => NEON,
        _ => BASELINE,
    }
}

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
