//! Sizes of the panels of packed factors.

use crate::kernels::primitives::isa::Isa;

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
