//! The sums of a tile of 12 rows and 32 columns by AVX-512, in 24 vector registers.

use super::panel::{AVX512, InPlace, Sums, Tile};
use crate::kernels::primitives::{factor::Start, lines::prefetch};
use std::arch::x86_64::*;

const ROWS: usize = AVX512.rows;
const COLS: usize = AVX512.cols;
const LEFT: usize = AVX512.left;

/// Terms by which the right panel is brought into the first cache ahead of its use.
const AHEAD: usize = 8;

/// Computes a tile from two packed panels.
///
/// # Safety
/// The processor has AVX-512 F; both panels can be read; no other code accesses the tile.
pub unsafe fn tile(sums: Sums, tile: &Tile) {
    // SAFETY: the caller's.
    unsafe {
        // The last panel of a task may have fewer rows.
        match tile.rows {
            0..=4 => rows::<4>(sums, tile),
            5..=8 => rows::<8>(sums, tile),
            _ => rows::<ROWS>(sums, tile),
        }
    }
}

/// The first `N` rows; at most these count.
#[target_feature(enable = "avx512f")]
unsafe fn rows<const N: usize>(Sums { left, right, terms }: Sums, tile: &Tile) {
    let line = |r: usize| tile.c.wrapping_add(r * tile.stride);
    // Rows of a large result lie on different pages, which the processor does not prefetch by itself.
    for r in 0..N {
        prefetch(line(r));
        prefetch(line(r).wrapping_add(COLS - 1));
    }
    let mut acc = [[_mm512_setzero_ps(); 2]; N];
    let step = |term: usize, acc: &mut [[__m512; 2]; N]| {
        let right = right.wrapping_add(term * COLS);
        prefetch(right.wrapping_add(AHEAD * COLS));
        prefetch(right.wrapping_add(AHEAD * COLS + 16));
        // SAFETY: the term lies inside both panels.
        unsafe {
            let right = [_mm512_load_ps(right), _mm512_load_ps(right.add(16))];
            for (r, acc) in acc.iter_mut().enumerate() {
                let left = _mm512_set1_ps(*left.add(term * LEFT + r));
                acc[0] = _mm512_fmadd_ps(left, right[0], acc[0]);
                acc[1] = _mm512_fmadd_ps(left, right[1], acc[1]);
            }
        }
    };
    let whole = terms / 4 * 4;
    for term in (0..whole).step_by(4) {
        (0..4).for_each(|t| step(term + t, &mut acc));
    }
    (whole..terms).for_each(|term| step(term, &mut acc));

    // SAFETY: the caller's.
    unsafe { write(tile, &acc) };
}

/// Computes a tile from both factors where they are.
///
/// # Safety
/// The processor has AVX-512 F; the tile's rows of the left factor and columns of the right one can be read; no other code accesses
/// the tile.
pub unsafe fn tile_in_place(factors: InPlace, tile: &Tile) {
    macro_rules! of {
        ($($rows:literal)*) => {
            match (tile.rows, tile.cols > 16) {
                $(
                    ($rows, true) => direct::<$rows, 2>(factors, tile),
                    ($rows, false) => direct::<$rows, 1>(factors, tile),
                )*
                (_, true) => direct::<ROWS, 2>(factors, tile),
                (_, false) => direct::<ROWS, 1>(factors, tile),
            }
        };
    }
    // SAFETY: the caller's; each function reads as many rows as the tile has.
    unsafe { of!(1 2 3 4 5 6 7 8 9 10 11) };
}

/// A tile of `N` rows and `V` vectors of columns.
#[target_feature(enable = "avx512f")]
unsafe fn direct<const N: usize, const V: usize>(factors: InPlace, tile: &Tile) {
    let InPlace { mut left, left_line, left_term, mut right, right_term, terms } = factors;
    let masks = [mask(tile.cols), mask(tile.cols.saturating_sub(16))];
    let mut acc = [[_mm512_setzero_ps(); V]; N];
    for _ in 0..terms {
        let mut columns = [_mm512_setzero_ps(); V];
        // SAFETY: the caller's: the masked columns and all rows lie inside the factors.
        unsafe {
            for (v, columns) in columns.iter_mut().enumerate() {
                *columns = _mm512_maskz_loadu_ps(masks[v], right.wrapping_add(16 * v));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let left = _mm512_set1_ps(*left.add(r * left_line));
                for (acc, &columns) in acc.iter_mut().zip(&columns) {
                    *acc = _mm512_fmadd_ps(left, columns, *acc);
                }
            }
        }
        left = left.wrapping_add(left_term);
        right = right.wrapping_add(right_term);
    }
    // SAFETY: the caller's.
    unsafe { write(tile, &acc) };
}

/// `c = start + alpha sums`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn write<const V: usize>(tile: &Tile, acc: &[[__m512; V]]) {
    let line = |r: usize| tile.c.wrapping_add(r * tile.stride);
    let masks = [mask(tile.cols), mask(tile.cols.saturating_sub(16))];
    let alpha = _mm512_set1_ps(tile.alpha);
    for (r, acc) in acc.iter().enumerate() {
        if r >= tile.rows {
            return;
        }
        for (half, (&sums, mask)) in acc.iter().zip(masks).enumerate() {
            let c = line(r).wrapping_add(16 * half);
            // SAFETY: the masked elements lie inside the tile, or inside the row that it starts from.
            unsafe {
                let sums = match tile.start {
                    Start::Zero => _mm512_mul_ps(alpha, sums),
                    Start::Accumulate => _mm512_fmadd_ps(alpha, sums, _mm512_maskz_loadu_ps(mask, c)),
                    Start::Row(row) => {
                        let row = row.ptr().wrapping_add(16 * half);
                        _mm512_fmadd_ps(alpha, sums, _mm512_maskz_loadu_ps(mask, row))
                    }
                };
                _mm512_mask_storeu_ps(c, mask, sums);
            }
        }
    }
}

/// The lowest `count` of 16 bits.
pub fn mask(count: usize) -> u16 {
    if count >= 16 { u16::MAX } else { (1 << count) - 1 }
}
