//! Tiles and panels by vectors of any width, for the sets without AVX-512.

use super::panel::{AVX2, BASELINE, NEON, Sums, Tile};
use crate::kernels::primitives::{factor::Side, isa::Isa, lines::write_row, operand::MatMut};
use pulp::{Scalar128b, Simd, WithSimd};

/// Vectors in a row of a tile.
const ACROSS: usize = 2;

/// As [`super::tile::compute`].
///
/// # Safety
/// As there.
pub unsafe fn tile(isa: &Isa, sums: Sums, tile: &Tile) {
    isa.arch.dispatch(Compute { sums, tile });
}

/// A tile, for the vectors of a set.
struct Compute<'a> {
    sums: Sums,
    tile: &'a Tile,
}

impl WithSimd for Compute<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // SAFETY: the caller of `tile` guarantees it; panels and vectors are those of the set.
        unsafe {
            match S::F32_LANES * ACROSS {
                lanes if lanes == AVX2.cols => rows::<S, { AVX2.rows }, true>(simd, self.sums, self.tile),
                lanes if lanes == NEON.cols => rows::<S, { NEON.rows }, true>(simd, self.sums, self.tile),
                // Single numbers: a fused multiply-add would be a call of the mathematical library.
                _ => rows::<Scalar128b, { BASELINE.rows }, false>(Scalar128b, self.sums, self.tile),
            }
        }
    }
}

/// A tile of `N` rows. Plain loops: what `array::map` and other functions of the library call is not inlined, and would be compiled
/// without the set's instructions.
#[inline(always)]
unsafe fn rows<S: Simd, const N: usize, const FUSED: bool>(simd: S, sums: Sums, tile: &Tile) {
    let Sums { left, right, terms } = sums;
    let mut acc = [[simd.splat_f32s(0.0); ACROSS]; N];
    for term in 0..terms {
        // SAFETY: the term lies inside both panels, of `N` rows and `ACROSS` vectors of columns.
        unsafe {
            let right = right.add(term * ACROSS * S::F32_LANES).cast::<S::f32s>();
            let right = [right.read_unaligned(), right.add(1).read_unaligned()];
            for (r, acc) in acc.iter_mut().enumerate() {
                let left = simd.splat_f32s(*left.add(term * N + r));
                for (acc, &right) in acc.iter_mut().zip(&right) {
                    *acc = if FUSED {
                        simd.mul_add_f32s(left, right, *acc)
                    } else {
                        simd.add_f32s(simd.mul_f32s(left, right), *acc)
                    };
                }
            }
        }
    }
    let c = MatMut::new(tile.c, tile.rows, tile.cols, tile.stride);
    for (r, acc) in acc.iter().enumerate() {
        if r < tile.rows {
            // SAFETY: the numbers of vectors; the row of the tile is this call's own.
            unsafe {
                let sums = std::slice::from_raw_parts(acc.as_ptr().cast::<f32>(), tile.cols);
                write_row(c, r, 0, sums, tile.alpha, tile.start);
            }
        }
    }
}

/// Packs lines as panels of `lines` numbers for each term, `wide` floats apart. What lies outside the factor is 0.
///
/// # Safety
/// The range lies inside the factor; the panels fit at `to`.
pub unsafe fn pack(
    isa: &Isa,
    side: &Side<f32>,
    (first, count): (usize, usize),
    (term, terms): (usize, usize),
    (lines, wide): (usize, usize),
    to: *mut f32,
) {
    if terms == 0 {
        return;
    }
    isa.wide(
        #[inline(always)]
        || {
            for line in (0..count).step_by(lines) {
                let here = lines.min(count - line);
                let at = line / lines * wide * terms;
                // SAFETY: the caller's: a whole panel fits here.
                let panel = unsafe { std::slice::from_raw_parts_mut(to.add(at), wide * terms) };
                if here < wide {
                    panel.fill(0.0);
                }
                if side.along {
                    for l in 0..here {
                        let from = side.ptr.wrapping_add((first + line + l) * side.stride + term);
                        // SAFETY: the caller's: these terms lie inside the factor.
                        let from = unsafe { std::slice::from_raw_parts(from, terms) };
                        for (to, x) in panel[l..].iter_mut().step_by(wide).zip(from) {
                            *to = *x;
                        }
                    }
                } else {
                    for (t, to) in panel.chunks_exact_mut(wide).enumerate() {
                        let from = side.ptr.wrapping_add((term + t) * side.stride + first + line);
                        // SAFETY: as above.
                        to[..here].copy_from_slice(unsafe { std::slice::from_raw_parts(from, here) });
                    }
                }
            }
        },
    );
}
