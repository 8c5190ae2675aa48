//! The product of a block by AVX512-BF16: `vdpbf16ps` on vectors of 16 sums.

use super::{
    block::{BLOCK, Dot, Rows, TILE},
    pack,
};
use std::arch::x86_64::*;

/// The products of the set `avx512bf16`.
pub const DOT: Dot =
    Dot { begin: nothing, multiply, end: nothing, pack: pack::PACK, transpose: pack::transpose_sums, rate: 80 };

/// Whether this processor has the instructions.
pub fn available() -> bool {
    pulp::x86::V4::try_new().is_some()
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

unsafe fn nothing() {}

/// Most rows whose sums are in registers at a time: with two tiles of columns 24 of the 32 registers. A step then takes 14 loads for
/// 24 products.
const GROUP: usize = 12;

/// Rows of the last group of a block of 32, and of each group of a block of 16: more rows need not be there.
const LAST: usize = 8;

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply(a: Rows, b: *const u8, cols: usize, steps: usize, sums: &mut [f32; BLOCK * BLOCK]) {
    let high = if a.rows > BLOCK / 2 { GROUP } else { LAST };
    for row in (0..a.rows).step_by(high) {
        // SAFETY: the caller's, for these rows.
        unsafe {
            match (high == GROUP && a.rows - row > LAST, cols > BLOCK / 2) {
                (true, true) => group::<GROUP, 2>(&a, row, b, steps, sums),
                (true, false) => group::<GROUP, 1>(&a, row, b, steps, sums),
                (false, true) => group::<LAST, 2>(&a, row, b, steps, sums),
                (false, false) => group::<LAST, 1>(&a, row, b, steps, sums),
            }
        }
    }
}

/// Rows `row..row + N` by `TILES` tiles of columns.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn group<const N: usize, const TILES: usize>(
    a: &Rows,
    row: usize,
    b: *const u8,
    steps: usize,
    sums: &mut [f32; BLOCK * BLOCK],
) {
    // Not only in debug builds: tests run in release builds, and a read past the factor changes no result.
    assert!(row + N <= a.rows.next_multiple_of(BLOCK / 2), "only these rows can be read");
    debug_assert_eq!(a.second, BLOCK / 2 * a.stride, "all rows are equally far apart");
    let first = a.ptr.wrapping_add(row * a.stride);
    let mut acc = [[_mm512_setzero_ps(); TILES]; N];
    for step in 0..steps {
        // SAFETY: the caller's: `steps` steps of both factors can be read, the rows up to the next multiple of 16.
        unsafe {
            let (a_step, b) = (first.add(step * a.step), b.add(step * 2 * TILE));
            for pair in 0..16 {
                let b: [__m512bh; TILES] = std::array::from_fn(|t| {
                    std::mem::transmute::<__m512i, __m512bh>(_mm512_load_si512(b.add(t * TILE + 64 * pair).cast()))
                });
                for (r, acc) in acc.iter_mut().enumerate() {
                    let word: i32 = a_step.add(r * a.stride + 4 * pair).cast::<i32>().read_unaligned();
                    let word = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(word));
                    for t in 0..TILES {
                        acc[t] = _mm512_dpbf16_ps(acc[t], word, b[t]);
                    }
                }
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (t, &acc) in acc.iter().enumerate() {
            // SAFETY: sixteen floats inside the block.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add((row + r) * BLOCK + 16 * t), acc) };
        }
    }
}
