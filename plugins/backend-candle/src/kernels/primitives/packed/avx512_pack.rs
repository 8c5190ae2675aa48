//! Factors as panels for AVX-512: for each term, the numbers of 12 rows or 32 columns side by side. What lies outside the factor is 0.
//!
//! A range is a pair of first and number.

use super::{avx512::mask, panel::AVX512};
use crate::kernels::primitives::{bf16::pack::transpose, factor::Side, lines::prefetch};
use std::arch::x86_64::*;

const ROWS: usize = AVX512.rows;
const COLS: usize = AVX512.cols;
const LEFT: usize = AVX512.left;

/// Terms by which adjacent lines are brought into the first cache ahead of their use.
const AHEAD: usize = 6;

/// Packs rows of the left factor: panels of [`LEFT`] floats per term, of which [`ROWS`] count.
///
/// # Safety
/// The processor has AVX-512 (F, VL); rows and terms lie inside the factor; `to` is aligned to 64 bytes, and the panels fit there.
#[target_feature(enable = "avx512f,avx512vl")]
pub unsafe fn rows(side: &Side<f32>, (row, rows): (usize, usize), (term, terms): (usize, usize), to: *mut f32) {
    if !side.along {
        let from = side.ptr.wrapping_add(term * side.stride + row);
        // SAFETY: the caller's.
        return unsafe { across::<ROWS, LEFT>(from, side.stride, rows, terms, to) };
    }
    for r in (0..rows).step_by(ROWS) {
        let from = side.ptr.wrapping_add((row + r) * side.stride + term);
        // SAFETY: the caller's.
        unsafe { twelve(from, side.stride, ROWS.min(rows - r), terms, to.add(r / ROWS * LEFT * terms)) };
    }
}

/// Packs columns of the right factor: panels of [`COLS`] floats per term.
///
/// # Safety
/// As [`rows`].
#[target_feature(enable = "avx512f,avx512vl")]
pub unsafe fn columns(side: &Side<f32>, (col, cols): (usize, usize), (term, terms): (usize, usize), to: *mut f32) {
    if !side.along {
        let from = side.ptr.wrapping_add(term * side.stride + col);
        // SAFETY: the caller's.
        return unsafe { across::<COLS, COLS>(from, side.stride, cols, terms, to) };
    }
    for c in (0..cols).step_by(16) {
        let from = side.ptr.wrapping_add((col + c) * side.stride + term);
        // SAFETY: the caller's.
        unsafe {
            let to = to.add(c / COLS * COLS * terms + c % COLS);
            sixteen(from, side.stride, 16.min(cols - c), terms, to);
        }
    }
    // The panel's second half, if no column reaches it.
    if (1..=16).contains(&(cols % COLS)) {
        for term in 0..terms {
            // SAFETY: as above.
            unsafe { _mm512_store_ps(to.add((cols / COLS * terms + term) * COLS + 16), _mm512_setzero_ps()) };
        }
    }
}

/// Panels of `N` lines, each `WIDE` floats per term, of a factor whose lines are adjacent.
#[target_feature(enable = "avx512f")]
unsafe fn across<const N: usize, const WIDE: usize>(
    from: *const f32,
    stride: usize,
    lines: usize,
    terms: usize,
    to: *mut f32,
) {
    for term in 0..terms {
        let from = from.wrapping_add(term * stride);
        for line in (0..lines).step_by(N) {
            let to = to.wrapping_add((line / N * terms + term) * WIDE);
            for part in (0..WIDE).step_by(16) {
                let mask = mask(N.min(lines - line).saturating_sub(part));
                let from = from.wrapping_add(line + part);
                prefetch(from.wrapping_add(AHEAD * stride));
                // SAFETY: the caller's: the masked elements lie inside the factor.
                unsafe { _mm512_store_ps(to.add(part), _mm512_maskz_loadu_ps(mask, from)) };
            }
        }
    }
}

/// A panel of at most 12 rows whose terms are adjacent.
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn twelve(from: *const f32, stride: usize, rows: usize, terms: usize, to: *mut f32) {
    for term in (0..terms).step_by(4) {
        let count = 4.min(terms - term);
        // Lanes of four terms: word i has rows i, i + 4 and i + 8.
        let mut words = [_mm512_setzero_ps(); 4];
        for r in 0..ROWS {
            if r < rows {
                // SAFETY: the caller's: the masked elements lie inside the factor.
                let four = unsafe { _mm_maskz_loadu_ps((1 << count) - 1, from.add(r * stride + term)) };
                words[r % 4] = _mm512_mask_broadcast_f32x4(words[r % 4], 0xf << (r / 4 * 4), four);
            }
        }
        let [a, b, c, d] = words;
        let pairs = |a, b| (_mm512_castps_pd(_mm512_unpacklo_ps(a, b)), _mm512_castps_pd(_mm512_unpackhi_ps(a, b)));
        let ((low, high), (low2, high2)) = (pairs(a, b), pairs(c, d));
        let words = [
            _mm512_unpacklo_pd(low, low2),
            _mm512_unpackhi_pd(low, low2),
            _mm512_unpacklo_pd(high, high2),
            _mm512_unpackhi_pd(high, high2),
        ];
        for (t, &word) in words.iter().enumerate().take(count) {
            // SAFETY: the caller's.
            unsafe { _mm512_store_ps(to.add((term + t) * LEFT), _mm512_castpd_ps(word)) };
        }
    }
}

/// Half a panel: at most 16 columns whose terms are adjacent.
#[target_feature(enable = "avx512f")]
unsafe fn sixteen(from: *const f32, stride: usize, cols: usize, terms: usize, to: *mut f32) {
    for term in (0..terms).step_by(16) {
        let mask = mask(terms - term);
        let mut words = [_mm512_setzero_si512(); 16];
        for (c, word) in words.iter_mut().enumerate() {
            if c < cols {
                // SAFETY: the caller's: the masked elements lie inside the factor.
                *word = unsafe { _mm512_maskz_loadu_epi32(mask, from.add(c * stride + term).cast()) };
            }
        }
        transpose(&mut words);
        for (t, &word) in words.iter().enumerate().take(terms - term) {
            // SAFETY: the caller's.
            unsafe { _mm512_store_si512(to.add((term + t) * COLS).cast(), word) };
        }
    }
}
