//! Blocks of a product: their sizes, the factors that they are computed from, and the functions of an instruction set.

use crate::kernels::primitives::{
    element::{Element, is_f32},
    factor::Side,
};

/// Rows and columns of a block of sums.
pub const BLOCK: usize = 32;
/// Terms of a step.
pub const STEP: usize = 32;
/// Bytes of a packed tile: 16 rows of 64 bytes.
pub const TILE: usize = 1024;

/// The products of a set with instructions for bf16.
#[derive(Clone, Copy)]
pub struct Dot {
    /// Called before the first `multiply` of a task.
    pub begin: unsafe fn(),
    /// `sums = left right` for a block: the left rows, the right factor's packed block and its columns that count, the steps (at
    /// least 1). Only the sums of the first `rows` rows and of these columns are defined.
    pub multiply: unsafe fn(Rows, *const u8, usize, usize, &mut [f32; BLOCK * BLOCK]),
    /// Called after the last.
    pub end: unsafe fn(),
    /// Packs a factor.
    pub pack: Pack,
    /// Transposes a block of sums.
    pub transpose: unsafe fn(&mut [f32; BLOCK * BLOCK]),
    /// Multiply-adds per nanosecond, to estimate run times.
    pub rate: usize,
}

/// A function that packs steps of a block: factor, first line, first term, steps, whether it is the left factor, address.
pub type PackSide<E> = unsafe fn(&Side<E>, usize, usize, usize, bool, *mut u8);

/// The functions that pack, by type.
#[derive(Clone, Copy)]
pub struct Pack {
    /// Rounds to bf16.
    pub f32: PackSide<f32>,
    /// Moves.
    pub bf16: PackSide<half::bf16>,
}

impl Pack {
    /// Packs a factor of `E`.
    ///
    /// # Safety
    /// The factor can be read, and `2 * TILE * steps` bytes at `to` written.
    pub unsafe fn run<E: Element>(
        &self,
        side: &Side<E>,
        first: usize,
        from: usize,
        steps: usize,
        left: bool,
        to: *mut u8,
    ) {
        // SAFETY: the caller's; a session has these functions only on a processor with their instructions.
        unsafe {
            if is_f32::<E>() {
                (self.f32)(&side.cast(), first, from, steps, left, to);
            } else {
                (self.bf16)(&side.cast(), first, from, steps, left, to);
            }
        }
    }
}

/// Up to 32 rows of the left factor, in bytes; rows up to the next multiple of 16 can be read.
#[derive(Clone, Copy)]
pub struct Rows {
    /// The first term of row 0.
    pub ptr: *const u8,
    /// From row to row.
    pub stride: usize,
    /// From step to step.
    pub step: usize,
    /// From row 0 to row 16.
    pub second: usize,
    /// Rows that count.
    pub rows: usize,
}

impl<E: Element> Side<E> {
    /// Whether a left factor is read where it is.
    pub fn in_place(&self) -> bool {
        self.along && !is_f32::<E>() && self.depth.is_multiple_of(STEP)
    }

    /// Relative cost of packing, by the shuffles per step.
    pub fn cost(&self, left: bool) -> usize {
        let each = match (left, self.along) {
            (true, true) if self.in_place() => 0,
            (true, true) | (false, false) => 3,
            (false, true) => 6,
            (true, false) => 8,
        };
        each * self.len * self.depth
    }
}
