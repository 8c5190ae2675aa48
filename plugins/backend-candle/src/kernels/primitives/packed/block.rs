//! A product on the calling thread.

#[cfg(target_arch = "x86_64")]
use super::{
    avx512,
    panel::{InPlace, Tile},
};
use super::{
    panel,
    product::{ACROSS, PART, Plan, TALL, Work, aligned},
    tile,
};
#[cfg(target_arch = "x86_64")]
use crate::kernels::primitives::factor::Start;
use crate::kernels::primitives::{
    factor::{Product, Side},
    isa::Isa,
};

/// Rows, columns and terms that are packed at a time.
fn sizes(m: usize, n: usize, k: usize) -> (usize, usize, usize) {
    (m.min(TALL), n.min(ACROSS), k.div_ceil(k.div_ceil(PART).max(1)).max(1))
}

/// Floats of scratch for [`block`].
pub fn block_len(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    let panel = panel::of(isa);
    // Of any smaller block too: fewer terms may be cut into longer parts.
    let (rows, cols, part) = (m.min(TALL), n.min(ACROSS), k.clamp(1, PART));
    (rows.div_ceil(panel.rows) * panel.left + cols.next_multiple_of(panel.cols)) * part + 2 * 16
}

/// Computes the product, with [`block_len`] floats of scratch.
///
/// # Safety
/// The buffers live, no other code accesses `c` or writes `a` or `b`, and neither overlaps `c`.
pub unsafe fn block(isa: &Isa, scratch: &mut [f32], p: Product) {
    let (m, n, k) = p.sizes();
    let (tall, across, part) = sizes(m, n, k);
    let panel = panel::of(isa);
    #[cfg(target_arch = "x86_64")]
    if isa.avx512 {
        // SAFETY: the caller's; the set has AVX-512.
        return unsafe { in_place(isa, scratch, p) };
    }
    let plan = Plan { width: across, part, depth: part, rows: tall, panel };
    let work = Work { isa: *isa, p, left: Side::left(p.a), right: Side::right(p.b), plan };
    let (right, left) = scratch.split_at_mut(across.next_multiple_of(panel.cols) * part + 16);
    let (right, left) = (aligned(right), aligned(left));
    for col in (0..n).step_by(across.max(1)) {
        let cols = (col, across.min(n - col));
        // Without terms the result is still written.
        for term in (0..k.max(1)).step_by(part) {
            let terms = (term, part.min(k - term));
            // SAFETY: the caller's; the scratch holds these rows and columns.
            unsafe {
                tile::pack_cols(isa, panel, &work.right, cols, terms, right);
                for row in (0..m).step_by(tall.max(1)) {
                    let rows = (row, tall.min(m - row));
                    tile::pack_rows(isa, panel, &work.left, rows, terms, left);
                    work.tiles(rows, cols, terms.1, term == 0, left, right);
                }
            }
        }
    }
}

/// As [`block`], by AVX-512 from the factors where they are: they are small, so that packing would take as long as the sums. Only
/// columns whose terms are adjacent are packed, which transposes them. Sums have the order of packed ones.
#[cfg(target_arch = "x86_64")]
unsafe fn in_place(isa: &Isa, scratch: &mut [f32], p: Product) {
    let (m, n, k) = p.sizes();
    let (_, _, part) = sizes(m, n, k);
    let panel = panel::of(isa);
    let (left, right) = (Side::left(p.a), Side::right(p.b));
    let (left_line, left_term) = if left.along { (left.stride, 1) } else { (1, left.stride) };
    let packed = aligned(scratch);
    for col in (0..n).step_by(panel.cols) {
        let cols = (col, panel.cols.min(n - col));
        // Without terms the result is still written.
        for term in (0..k.max(1)).step_by(part) {
            let terms = part.min(k - term);
            let (of_right, right_term) = if right.along {
                // SAFETY: the caller's; the scratch holds a panel of these columns.
                unsafe { tile::pack_cols(isa, panel, &right, cols, (term, terms), packed) };
                (packed.cast_const(), panel.cols)
            } else {
                (right.ptr.wrapping_add(term * right.stride + col), right.stride)
            };
            let start = if term == 0 { p.start } else { Start::Accumulate };
            for row in (0..m).step_by(panel.rows) {
                let factors = InPlace {
                    left: left.ptr.wrapping_add(row * left_line + term * left_term),
                    left_line,
                    left_term,
                    right: of_right,
                    right_term,
                    terms,
                };
                let tile = Tile {
                    c: p.c.ptr().wrapping_add(row * p.c.stride + col),
                    stride: p.c.stride,
                    rows: panel.rows.min(m - row),
                    cols: cols.1,
                    alpha: p.alpha,
                    start: start.columns(col, cols.1),
                };
                // SAFETY: the caller's; the tile lies inside the result.
                unsafe { avx512::tile_in_place(factors, &tile) };
            }
        }
    }
}
