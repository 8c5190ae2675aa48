//! A product that the threads share: its plan, and its pieces, packed and multiplied.

use super::{
    panel::{self, Panel, Sums, Tile},
    tile,
};
use crate::kernels::primitives::{
    factor::{Product, Side, Start},
    isa::Isa,
    parallel::Parallel,
};

/// Terms that are added up in registers.
pub const PART: usize = 512;
/// Terms that are packed at a time.
pub const DEPTH: usize = 4 * PART;
/// Columns that are packed at a time: one part of them stays in the second cache.
pub const WIDTH: usize = 1024;
/// Columns whose sums are computed from a left panel before the next one, so that rows of the result are written in long pieces.
pub const ACROSS: usize = 256;
/// Columns that a task packs at a time, of a factor whose columns are adjacent in memory.
const GROUP: usize = 256;
/// Most and least rows of a task, and the wanted number of tasks.
pub const TALL: usize = 128;
const FLAT: usize = 48;
const TASKS: usize = 8;

/// Threads above which a product with few rows is also split into columns: for fewer, the rows give enough tasks.
const FEW_THREADS: usize = 4;

/// Sizes of a product's pieces. All but the rows and columns of a task depend only on the product's sizes, and these change no result.
pub struct Plan {
    /// Columns that are packed at a time.
    pub width: usize,
    /// Terms of a part.
    pub part: usize,
    /// Terms that are packed at a time: whole parts.
    pub depth: usize,
    /// Rows of a task.
    pub rows: usize,
    /// Sizes of panels.
    pub panel: Panel,
}

impl Plan {
    fn new(panel: Panel, m: usize, n: usize, k: usize) -> Plan {
        let width = n.div_ceil(n.div_ceil(WIDTH).max(1)).next_multiple_of(panel.cols);
        let part = k.div_ceil(k.div_ceil(PART).max(1)).max(1);
        let depth = k.min(DEPTH / part * part);
        let rows = m.div_ceil(m.div_ceil(TALL).max(TASKS)).next_multiple_of(4).max(FLAT);
        Plan { width, part, depth, rows, panel }
    }

    /// With at least two tasks per thread, unless they become flatter than two panels: packed columns are read again by each.
    fn for_threads(self, m: usize, threads: usize) -> Plan {
        let most = m.div_ceil(2 * threads).next_multiple_of(self.panel.rows).max(2 * self.panel.rows);
        Plan { rows: self.rows.min(most), ..self }
    }

    /// Floats that hold packed columns.
    fn shared_len(&self) -> usize {
        self.width * self.depth + 16
    }

    /// Floats that hold a task's packed rows.
    fn own_len(&self) -> usize {
        self.rows.div_ceil(self.panel.rows) * self.panel.left * self.part + 16
    }
}

/// Floats of scratch for a product of at most `m` rows: what the threads share, and a thread's own.
pub fn product_len(isa: &Isa, m: usize, n: usize, k: usize) -> usize {
    let plan = Plan::new(panel::of(isa), m, n, k);
    plan.shared_len() + plan.own_len()
}

/// An address that tasks share.
#[derive(Clone, Copy)]
struct Packed(*mut f32);

// SAFETY: a plain address; tasks write disjoint panels, and read them after all are written.
unsafe impl Sync for Packed {}

impl Packed {
    fn at(&self, floats: usize) -> *mut f32 {
        self.0.wrapping_add(floats)
    }
}

/// The part of a product that is computed from the packed columns: first and number of columns, and of terms.
#[derive(Clone, Copy)]
struct Piece {
    cols: (usize, usize),
    terms: (usize, usize),
}

/// Computes the product, split into rows, or rows and columns, that the threads share.
///
/// # Safety
/// The buffers live, no other code accesses `c` or writes `a` or `b`, and neither overlaps `c`.
pub unsafe fn product(par: &Parallel, p: Product) {
    let (m, n, k) = p.sizes();
    if m == 0 || n == 0 {
        return;
    }
    let plan = Plan::new(panel::of(par.isa()), m, n, k).for_threads(m, par.threads());
    let work = Work { isa: *par.isa(), p, left: Side::left(p.a), right: Side::right(p.b), plan };
    let plan = &work.plan;
    par.with_shared(plan.shared_len(), |memory| {
        let right = Packed(aligned(memory));
        for col in (0..n).step_by(plan.width) {
            for term in (0..k.max(1)).step_by(plan.depth.max(1)) {
                let cols = (col, plan.width.min(n - col));
                let piece = Piece { cols, terms: (term, plan.depth.min(k - term)) };
                // SAFETY: the caller's; the memory holds a piece of this width and depth.
                unsafe {
                    work.pack(par, &piece, right);
                    work.multiply(par, &piece, right);
                }
            }
        }
    });
}

/// The first address in `memory` at a line of the cache; at most 15 floats are skipped.
pub fn aligned(memory: &mut [f32]) -> *mut f32 {
    let skipped = memory.as_ptr().align_offset(64);
    memory[skipped..].as_mut_ptr()
}

/// A product and its plan.
pub struct Work {
    /// The instruction set.
    pub isa: Isa,
    /// The product.
    pub p: Product,
    /// Its left factor.
    pub left: Side<f32>,
    /// Its right factor.
    pub right: Side<f32>,
    /// The sizes of its pieces.
    pub plan: Plan,
}

impl Work {
    /// Packs the columns of a piece: by parts, each a sequence of panels.
    unsafe fn pack(&self, par: &Parallel, piece: &Piece, to: Packed) {
        let ((col, cols), (term, terms)) = (piece.cols, piece.terms);
        let (part, wide) = (self.plan.part, self.plan.panel.cols);
        let panels = cols.next_multiple_of(wide);
        let group = cols.div_ceil(cols.div_ceil(GROUP)).next_multiple_of(wide);
        let groups = cols.div_ceil(group);
        par.run(groups * terms.div_ceil(part), cols * terms / 4, |task| {
            let (from, at) = (task / groups * part, task % groups * group);
            let len = part.min(terms - from);
            // SAFETY: the caller's; tasks write disjoint panels.
            unsafe {
                let to = to.at(from * panels + at * len);
                let cols = (col + at, group.min(cols - at));
                tile::pack_cols(&self.isa, self.plan.panel, &self.right, cols, (term + from, len), to);
            }
        });
    }

    /// Columns of a task: all of a piece's, unless the rows alone give many threads fewer than two tasks each.
    fn task_cols(&self, cols: usize, threads: usize) -> usize {
        let along_rows = self.left.len.div_ceil(self.plan.rows).max(1);
        let wanted = if threads > FEW_THREADS { (2 * threads).div_ceil(along_rows) } else { 1 };
        cols.div_ceil(wanted).max(ACROSS).min(cols).next_multiple_of(self.plan.panel.cols)
    }

    /// Adds a piece to the result.
    unsafe fn multiply(&self, par: &Parallel, piece: &Piece, right: Packed) {
        let (m, (_, cols), (term, terms)) = (self.left.len, piece.cols, piece.terms);
        let (part, rows) = (self.plan.part, self.plan.rows);
        let nanoseconds = m * cols * terms / 80;
        let across = self.task_cols(cols, par.threads());
        let along_cols = cols.div_ceil(across);
        par.run_scratch(m.div_ceil(rows) * along_cols, nanoseconds, self.plan.own_len(), |task, scratch| {
            let (row, at) = (task / along_cols * rows, task % along_cols * across);
            let rows = (row, rows.min(m - row));
            let own_cols = (piece.cols.0 + at, across.min(cols - at));
            let left = aligned(scratch);
            // Without terms the result is still written.
            for from in (0..terms.max(1)).step_by(part) {
                let len = part.min(terms - from);
                // SAFETY: the caller's; the scratch holds the task's rows; no other task writes these columns of them.
                unsafe {
                    tile::pack_rows(&self.isa, self.plan.panel, &self.left, rows, (term + from, len), left);
                    let right = right.at(from * cols.next_multiple_of(self.plan.panel.cols) + at * len);
                    self.tiles(rows, own_cols, len, term + from == 0, left, right);
                }
            }
        });
    }

    /// Computes the sums of packed rows and columns, over `len` terms; `first` if the sums begin with these.
    pub unsafe fn tiles(
        &self,
        (row, rows): (usize, usize),
        (col, cols): (usize, usize),
        len: usize,
        first: bool,
        left: *const f32,
        right: *const f32,
    ) {
        let Product { c, alpha, start, .. } = self.p;
        let Panel { rows: high, cols: wide, left: spread } = self.plan.panel;
        let start = if first { start } else { Start::Accumulate };
        for j in (0..cols).step_by(ACROSS) {
            for i in (0..rows).step_by(high) {
                let left = left.wrapping_add(i / high * spread * len);
                for j in (j..cols.min(j + ACROSS)).step_by(wide) {
                    let right = right.wrapping_add(j * len);
                    let size = (high.min(rows - i), wide.min(cols - j));
                    let tile = Tile {
                        c: c.ptr().wrapping_add((row + i) * c.stride + col + j),
                        stride: c.stride,
                        rows: size.0,
                        cols: size.1,
                        alpha,
                        start: start.columns(col + j, size.1),
                    };
                    // SAFETY: the caller's; the tile lies inside the result, and the panels are packed.
                    unsafe { tile::compute(&self.isa, Sums { left, right, terms: len }, &tile) };
                }
            }
        }
    }
}
