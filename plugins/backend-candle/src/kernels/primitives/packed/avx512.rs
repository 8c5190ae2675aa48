//! The sums of a tile of 12 rows and 32 columns by AVX-512, in 24 vector registers.

use super::{
    panel::AVX512,
    tile::{Sums, Tile},
};
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
