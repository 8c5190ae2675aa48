//! Products by the instructions for bf16: factors are packed, blocks are computed from them.

use super::{
    block::{BLOCK, Dot, Rows, STEP, TILE},
    output::{Sums, Target},
};
use crate::kernels::primitives::{
    element::{Element, is_f32},
    factor::{Product, Side, Start},
    isa::Isa,
    lines::write_row,
    operand::MatMut,
    parallel::Parallel,
};

/// Terms that are added up before their sums go to memory: the packed factors stay small.
pub const DEPTH: usize = 4096;
/// Columns of the right factor that are packed at a time.
pub const WIDTH: usize = 1024;
/// Rows that are computed at a time where the left factor is packed.
pub const HEIGHT: usize = 2048;
/// Least work of a tile in multiply-adds, and the wanted number of tiles.
const TILE_WORK: usize = 1 << 21;
const TILES: usize = 32;

/// Where the tasks of a product run.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// On the session's threads.
    Shared(&'a Parallel),
    /// On the calling thread.
    Here(&'a Isa),
}

impl Place<'_> {
    fn isa(&self) -> &Isa {
        match self {
            Place::Shared(par) => par.isa(),
            Place::Here(isa) => isa,
        }
    }

    fn run(&self, tasks: usize, nanoseconds: usize, f: impl Fn(usize) + Sync) {
        match self {
            Place::Shared(par) => par.run(tasks, nanoseconds, f),
            Place::Here(_) => (0..tasks).for_each(f),
        }
    }
}

/// Floats of memory for the packed factors of a product with a result in `C`, and for sums that are cut by [`DEPTH`] if the result
/// cannot hold them.
pub fn shared_len<C: Element>(m: usize, n: usize, k: usize) -> usize {
    let steps = k.min(DEPTH).div_ceil(STEP);
    let of = |left: usize, right: usize| {
        let (high, wide) = (left.min(HEIGHT), right.min(WIDTH));
        let sums = if k > DEPTH && !is_f32::<C>() { high * wide } else { 0 };
        // A step of a block is two tiles; floats have four bytes.
        (high.div_ceil(BLOCK) + wide.div_ceil(BLOCK)) * steps * 2 * TILE / 4 + sums
    };
    // The product may be computed transposed; the memory is aligned.
    of(m, n).max(of(n, m)) + 16
}

/// Computes the product or its transpose, whichever is estimated to be cheaper.
///
/// # Safety
/// As [`super::product`]; `dot` is that of the set of `place`.
pub unsafe fn either<A: Element, B: Element, C: Element>(
    place: Place<'_>,
    dot: Dot,
    memory: &mut [f32],
    p: Product<A, B, C>,
) {
    let (m, n, _) = p.sizes();
    if m == 0 || n == 0 {
        return;
    }
    let (a_left, b_right) = (Side::left(p.a), Side::right(p.b));
    // The transposed product has `b` on the left and `a` on the right, and its blocks are transposed when they are written: 12 per
    // sum, in the unit of `Side::cost`.
    let plain = a_left.cost(true) + b_right.cost(false);
    let flipped = b_right.cost(true) + a_left.cost(false) + 12 * m * n;
    let target = Target { c: p.c, alpha: p.alpha, start: p.start, flipped: flipped < plain };
    // SAFETY: the caller's.
    unsafe {
        if target.flipped {
            Work { place, dot, left: b_right, right: a_left, target }.run(memory);
        } else {
            Work { place, dot, left: a_left, right: b_right, target }.run(memory);
        }
    }
}

/// A product as a left and a right factor.
struct Work<'a, A, B, C, R> {
    place: Place<'a>,
    dot: Dot,
    left: Side<A>,
    right: Side<B>,
    target: Target<C, R>,
}

/// A part of the product: rows, columns and terms, each as first and number.
#[derive(Clone, Copy)]
struct Part {
    rows: (usize, usize),
    cols: (usize, usize),
    terms: (usize, usize),
}

/// Addresses of the packed factors. `left` points to the first block that is packed.
#[derive(Clone, Copy)]
struct Packed {
    left: *mut u8,
    right: *mut u8,
}

// SAFETY: plain addresses; tasks write disjoint blocks, and read them after all are written.
unsafe impl Sync for Packed {}

impl<A: Element, B: Element, C: Element, R: Element> Work<'_, A, B, C, R> {
    unsafe fn run(&self, memory: &mut [f32]) {
        let (m, n, k) = (self.left.len, self.right.len, self.left.depth);
        let in_place = self.left.in_place();
        let cut = k > DEPTH;
        let high = if in_place && !cut { m } else { m.min(HEIGHT) };
        let wide = n.min(WIDTH);
        let bytes = |len: usize| len.div_ceil(BLOCK) * k.min(DEPTH).div_ceil(STEP) * 2 * TILE;
        let aligned = memory.as_ptr().align_offset(64);
        let (right, rest) = memory[aligned..].split_at_mut(bytes(wide) / 4);
        // If the left factor is read in place, only its last block is packed, and only if that has neither 16 nor 32 rows.
        let (left, rest) = rest.split_at_mut(bytes(if in_place { BLOCK } else { high }) / 4);
        let packed = Packed { left: left.as_mut_ptr().cast(), right: right.as_mut_ptr().cast() };
        for j in (0..n).step_by(wide) {
            let cols = (j, wide.min(n - j));
            for i in (0..m).step_by(high) {
                let rows = (i, high.min(m - i));
                let sums = self.target.c.as_f32().is_none() && cut;
                for term in (0..k.max(1)).step_by(DEPTH) {
                    let part = Part { rows, cols, terms: (term, DEPTH.min(k - term)) };
                    // SAFETY: the caller's; the memory is as large as the packed parts.
                    unsafe {
                        self.pack(&part, &packed, cut || i == 0);
                        let first = term == 0;
                        if sums {
                            let (r, c) = if self.target.flipped { (cols.1, rows.1) } else { (rows.1, cols.1) };
                            let start: Start = if first { Start::Zero } else { Start::Accumulate };
                            let c = MatMut::over(rest, r, c);
                            let target = Target { c, alpha: self.target.alpha, start, flipped: self.target.flipped };
                            self.multiply(&part, &packed, &target, (0, 0));
                        } else {
                            let start = if first { self.target.start } else { Start::Accumulate };
                            self.multiply(&part, &packed, &Target { start, ..self.target }, (i, j));
                        }
                    }
                }
                if sums {
                    // SAFETY: the caller's; no task is left.
                    unsafe { self.round(rest, rows, cols) };
                }
            }
        }
    }

    /// Whether the block of rows that starts at `row` is packed.
    fn is_packed(&self, row: usize) -> bool {
        !self.left.in_place() || !(self.left.len - row).min(BLOCK).is_multiple_of(BLOCK / 2)
    }

    unsafe fn pack(&self, part: &Part, packed: &Packed, right: bool) {
        let steps = part.terms.1.div_ceil(STEP);
        let of_right = if right { part.cols.1.div_ceil(BLOCK) } else { 0 };
        let of_left = part.rows.1.div_ceil(BLOCK);
        // Of a left factor that is read in place, at most the last block is packed.
        let last = part.rows.0 + part.rows.1.saturating_sub(1) / BLOCK * BLOCK;
        let skipped = if self.left.in_place() { of_left - usize::from(self.is_packed(last)) } else { 0 };
        let (tasks, bytes) = (of_right + of_left - skipped, steps * 2 * TILE);
        self.place.run(tasks, tasks * bytes / 16, |task| {
            let pack = &self.dot.pack;
            // SAFETY: the caller's; tasks write disjoint blocks.
            unsafe {
                if task < of_right {
                    let (first, to) = (part.cols.0 + task * BLOCK, packed.right.add(task * bytes));
                    pack.run(&self.right, first, part.terms.0, steps, false, to);
                } else {
                    let (first, to) = (part.rows.0 + (skipped + task - of_right) * BLOCK, task - of_right);
                    pack.run(&self.left, first, part.terms.0, steps, true, packed.left.add(to * bytes));
                }
            }
        });
    }

    /// The rows of the block that starts at `row`.
    fn rows(&self, part: &Part, packed: &Packed, row: usize, steps: usize) -> Rows {
        let rows = BLOCK.min(self.left.len - row);
        if !self.is_packed(row) {
            let stride = 2 * self.left.stride;
            let ptr = self.left.ptr.cast::<u8>().wrapping_add(row * stride + 2 * part.terms.0);
            return Rows { ptr, stride, step: 2 * STEP, second: BLOCK / 2 * stride, rows };
        }
        // In place there is one packed block at most, the last one.
        let at = if self.left.in_place() { 0 } else { (row - part.rows.0) / BLOCK };
        let ptr = packed.left.wrapping_add(at * steps * 2 * TILE);
        Rows { ptr, stride: 64, step: 2 * TILE, second: TILE, rows }
    }

    /// Multiplies a part whose first sum is at `origin` of the target.
    unsafe fn multiply<D: Element, S: Element>(
        &self,
        part: &Part,
        packed: &Packed,
        target: &Target<D, S>,
        origin: (usize, usize),
    ) {
        let (m, n, steps) = (part.rows.1, part.cols.1, part.terms.1.div_ceil(STEP));
        let (tall, broad) = tile(m.div_ceil(BLOCK), n.div_ceil(BLOCK), part.terms.1);
        let (down, across) = (m.div_ceil(BLOCK).div_ceil(tall), n.div_ceil(BLOCK).div_ceil(broad));
        let (dot, isa) = (&self.dot, self.place.isa());
        self.place.run(down * across, m * n * part.terms.1 / dot.rate, |task| {
            let (top, left) = (task / across * tall * BLOCK, task % across * broad * BLOCK);
            // SAFETY: a session has these functions only on a processor with their instructions.
            unsafe { (dot.begin)() };
            isa.wide(
                #[inline(always)]
                || {
                    let mut sums = Sums([0.0; BLOCK * BLOCK]);
                    for i in (top..m.min(top + tall * BLOCK)).step_by(BLOCK) {
                        let rows = self.rows(part, packed, part.rows.0 + i, steps);
                        for j in (left..n.min(left + broad * BLOCK)).step_by(BLOCK) {
                            let cols = BLOCK.min(n - j);
                            let right = packed.right.wrapping_add(j / BLOCK * steps * 2 * TILE);
                            let at = (origin.0 + i, origin.1 + j);
                            target.prefetch(at, (rows.rows, cols));
                            // SAFETY: the packed blocks are written; tiles of the target are disjoint.
                            unsafe {
                                if steps > 0 {
                                    (dot.multiply)(rows, right, cols, steps, &mut sums.0);
                                }
                                target.write(dot, at, (rows.rows, cols), &mut sums);
                            }
                        }
                    }
                },
            );
            // SAFETY: as above.
            unsafe { (dot.end)() };
        });
    }

    /// Writes sums that were cut by [`DEPTH`] to the result.
    unsafe fn round(&self, sums: &mut [f32], rows: (usize, usize), cols: (usize, usize)) {
        let (rows, cols) = if self.target.flipped { (cols, rows) } else { (rows, cols) };
        let sums = MatMut::over(sums, rows.1, cols.1);
        let isa = self.place.isa();
        self.place.run(rows.1.div_ceil(BLOCK), rows.1 * cols.1 / 8, |task| {
            for r in task * BLOCK..rows.1.min((task + 1) * BLOCK) {
                isa.wide(
                    #[inline(always)]
                    // SAFETY: the caller's; tasks write disjoint rows.
                    || unsafe { write_row(self.target.c, rows.0 + r, cols.0, sums.row(r), 1.0, self.target.start) },
                );
            }
        });
    }
}

/// Blocks down and across of a tile. Depends only on sizes.
fn tile(down: usize, across: usize, depth: usize) -> (usize, usize) {
    let (mut tall, mut broad) = (down, across);
    while down.div_ceil(tall) * across.div_ceil(broad) < TILES && tall * broad > 1 {
        if tall * broad * BLOCK * BLOCK * depth < 2 * TILE_WORK {
            break;
        }
        if tall >= broad {
            tall = tall.div_ceil(2);
        } else {
            broad = broad.div_ceil(2);
        }
    }
    (tall, broad)
}
