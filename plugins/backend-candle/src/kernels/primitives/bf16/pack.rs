//! Factors as the instructions for bf16 read them.
//!
//! A block is 32 rows of the left factor, or 32 columns of the right one. In memory it is a sequence of steps of 32 terms, each two
//! tiles of 16 x 64 bytes: rows of 32 adjacent terms on the left; on the right, row p holds terms 2p and 2p + 1 of each of 16
//! columns. What lies outside the factor is 0.

use super::block::{BLOCK, Pack, STEP, TILE};
use crate::kernels::primitives::{
    element::{Element, is_f32},
    factor::Side,
};
use half::bf16;
use std::arch::x86_64::*;

/// Writes `steps` steps, the first of which starts at term `from`, of the block that starts at `first`.
///
/// # Safety
/// The processor has AVX-512 (F, BW, VL) and AVX512-BF16; the factor can be read, and `2 * TILE * steps` bytes at `to` written.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack<E: Element>(side: &Side<E>, first: usize, from: usize, steps: usize, left: bool, to: *mut u8) {
    let halves = if side.len - first > BLOCK / 2 { 2 } else { 1 };
    for step in 0..steps {
        for half in 0..halves {
            let (row, term) = (first + half * (BLOCK / 2), from + step * STEP);
            // SAFETY: the caller's promises; rows and terms outside the factor are not read.
            unsafe {
                let mut words = if side.along { along(side, row, term) } else { across(side, row, term) };
                if side.along != left {
                    transpose(&mut words);
                }
                let to = to.add((2 * step + half) * TILE);
                words.iter().enumerate().for_each(|(i, &word)| _mm512_storeu_si512(to.add(64 * i).cast(), word));
            }
        }
    }
}

/// Sixteen rows of 32 terms, of a factor whose terms are adjacent.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn along<E: Element>(side: &Side<E>, row: usize, term: usize) -> [__m512i; 16] {
    let terms = mask(side.depth.saturating_sub(term), STEP);
    let mut words = [_mm512_setzero_si512(); 16];
    for (r, word) in words.iter_mut().enumerate().take(side.len - row) {
        // SAFETY: the masked elements lie inside the factor.
        *word = unsafe { load_32(side.ptr.add((row + r) * side.stride + term), terms) };
    }
    words
}

/// Sixteen pairs of terms of 16 rows, of a factor whose rows are adjacent.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn across<E: Element>(side: &Side<E>, row: usize, term: usize) -> [__m512i; 16] {
    let rows = mask(side.len - row, 16) as u16;
    let mut words = [_mm512_setzero_si512(); 16];
    for (pair, word) in words.iter_mut().enumerate() {
        let at = |term: usize| {
            if term >= side.depth {
                return _mm512_setzero_si512();
            }
            // SAFETY: as above.
            _mm512_cvtepu16_epi32(unsafe { load_16(side.ptr.add(term * side.stride + row), rows) })
        };
        let term = term + 2 * pair;
        *word = _mm512_or_si512(at(term), _mm512_slli_epi32::<16>(at(term + 1)));
    }
    words
}

/// The lowest `count` of at most `most` bits.
fn mask(count: usize, most: usize) -> u32 {
    if count >= most { u32::MAX >> (32 - most) } else { (1 << count) - 1 }
}

/// Up to 32 numbers as bf16, the others 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn load_32<E: Element>(ptr: *const E, mask: u32) -> __m512i {
    // SAFETY: the caller's: the masked elements can be read.
    unsafe {
        if is_f32::<E>() {
            let ptr: *const f32 = ptr.cast();
            let low = _mm512_maskz_loadu_ps(mask as u16, ptr);
            let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, ptr.wrapping_add(16));
            return std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        }
        _mm512_maskz_loadu_epi16(mask, ptr.cast())
    }
}

/// Up to 16 numbers as bf16, the others 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn load_16<E: Element>(ptr: *const E, mask: u16) -> __m256i {
    // SAFETY: as above.
    unsafe {
        if is_f32::<E>() {
            let floats = _mm512_maskz_loadu_ps(mask, ptr.cast());
            return std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(floats));
        }
        _mm256_maskz_loadu_epi16(mask, ptr.cast())
    }
}

/// Transposes 16 x 16 words of 32 bits.
#[target_feature(enable = "avx512f")]
pub fn transpose(w: &mut [__m512i; 16]) {
    let mut t = [_mm512_setzero_si512(); 16];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(w[2 * i], w[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(w[2 * i], w[2 * i + 1]);
    }
    for i in 0..4 {
        w[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        w[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        w[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        w[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // w[4 i + c] now has, in lane l, column 4 l + c of rows 4 i to 4 i + 3.
    for c in 0..4 {
        let (low, high) = ((w[c], w[4 + c]), (w[8 + c], w[12 + c]));
        let a = _mm512_shuffle_i32x4::<0x88>(low.0, low.1);
        let b = _mm512_shuffle_i32x4::<0xdd>(low.0, low.1);
        let d = _mm512_shuffle_i32x4::<0x88>(high.0, high.1);
        let e = _mm512_shuffle_i32x4::<0xdd>(high.0, high.1);
        t[c] = _mm512_shuffle_i32x4::<0x88>(a, d);
        t[8 + c] = _mm512_shuffle_i32x4::<0xdd>(a, d);
        t[4 + c] = _mm512_shuffle_i32x4::<0x88>(b, e);
        t[12 + c] = _mm512_shuffle_i32x4::<0xdd>(b, e);
    }
    *w = t;
}

/// Transposes a block of 32 x 32 sums.
///
/// # Safety
/// The processor has AVX-512 F.
#[target_feature(enable = "avx512f")]
pub unsafe fn transpose_sums(sums: &mut [f32; BLOCK * BLOCK]) {
    let mut tiles = [[_mm512_setzero_si512(); 16]; 4];
    for (t, tile) in tiles.iter_mut().enumerate() {
        for (r, word) in tile.iter_mut().enumerate() {
            let at = (t / 2 * 16 + r) * BLOCK + t % 2 * 16;
            // SAFETY: sixteen floats inside the block.
            *word = unsafe { _mm512_loadu_si512(sums.as_ptr().add(at).cast()) };
        }
        transpose(tile);
    }
    for (t, tile) in tiles.iter().enumerate() {
        for (r, &word) in tile.iter().enumerate() {
            let at = (t % 2 * 16 + r) * BLOCK + t / 2 * 16;
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(sums.as_mut_ptr().add(at).cast(), word) };
        }
    }
}

/// [`pack`] for each type.
pub const PACK: Pack = Pack { f32: pack::<f32>, bf16: pack::<bf16> };
