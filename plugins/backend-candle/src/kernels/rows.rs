//! Operations that select or scatter rows: embeddings and row gathers.

use crate::check;
use crate::kernels::{
    context::{Context, Kernels, kernels},
    primitives::{
        element::{Element, load_row, store_row},
        math::add_scaled,
        operand::{Mat, MatMut},
    },
};
use plugin_api::{
    Error, Result,
    backend::ops::{Embedding, EmbeddingBackward, GatherRows, ScatterAddRows},
};

kernels! {
    RowOps:
    embedding Embedding [table] => embedding,
    embedding_backward EmbeddingBackward [dy] => embedding_backward,
    gather_rows GatherRows [x] => gather,
    scatter_add_rows ScatterAddRows [dy] => scatter_add,
}

/// `y[n] = scale table[ids[n]] + position_table[positions[n]]`.
pub fn embedding<E: Element>(s: &mut Kernels<'_>, op: &Embedding) -> Result<()> {
    let (ids, table): (_, Mat<E>) = (s.ints(&op.ids)?, s.input(&op.table)?);
    check::indices("embedding", "ids", ids, table.rows)?;
    let positions = match (&op.positions, &op.position_table) {
        (Some(positions), Some(rows)) => {
            let (positions, rows): (_, Mat<E>) = (s.ints(positions)?, s.input(rows)?);
            check::indices("embedding", "positions", positions, rows.rows)?;
            Some((positions, rows))
        }
        (None, None) => None,
        _ => return Err(Error::invalid("embedding: `positions` and `position_table` must be given together")),
    };
    let (y, scale): (MatMut<E>, f32) = (s.output(&op.y)?, op.scale as f32);
    let par = &s.cx.par;
    par.rows(y.rows, y.cols, 300, |n| {
        par.wide(
            #[inline(always)]
            || {
                // SAFETY: indices are checked; rows of `y` are disjoint and do not overlap the tables (alias rules).
                let (y, row) = unsafe { (y.row(n), table.row(ids[n] as usize)) };
                match positions {
                    None => y.iter_mut().zip(row).for_each(|(y, x)| *y = E::store(scale * x.load())),
                    Some((positions, rows)) => {
                        // SAFETY: as above.
                        let at = unsafe { rows.row(positions[n] as usize) };
                        for ((y, x), at) in y.iter_mut().zip(row).zip(at) {
                            *y = E::store(scale * x.load() + at.load());
                        }
                    }
                }
            },
        );
    });
    Ok(())
}

/// `dtable[ids[n]] += scale dy[n]`.
pub fn embedding_backward<E: Element>(s: &mut Kernels<'_>, op: &EmbeddingBackward) -> Result<()> {
    let (ids, dy): (_, Mat<E>) = (s.ints(&op.ids)?, s.input(&op.dy)?);
    check::indices("embedding_backward", "ids", ids, op.dtable.rows as usize)?;
    let dtable: MatMut = s.output(&op.dtable)?;
    add_rows(s.cx, dtable, ids, dy, op.scale as f32);
    Ok(())
}

/// `y[m] = x[index[m]]`.
pub fn gather<E: Element>(s: &mut Kernels<'_>, op: &GatherRows) -> Result<()> {
    let (x, index): (Mat<E>, _) = (s.input(&op.x)?, s.ints(&op.index)?);
    check::indices("gather_rows", "index", index, x.rows)?;
    let y: MatMut<E> = s.output(&op.y)?;
    s.cx.par.rows(y.rows, y.cols, 200, |m| {
        // SAFETY: indices are checked; rows of `y` are disjoint and do not overlap `x`.
        unsafe { y.row(m).copy_from_slice(x.row(index[m] as usize)) };
    });
    Ok(())
}

/// `dx[index[m]] += dy[m]`.
pub fn scatter_add<E: Element>(s: &mut Kernels<'_>, op: &ScatterAddRows) -> Result<()> {
    let (index, dy): (_, Mat<E>) = (s.ints(&op.index)?, s.input(&op.dy)?);
    check::indices("scatter_add_rows", "index", index, op.dx.rows as usize)?;
    let dx: MatMut<E> = s.output(&op.dx)?;
    add_rows(s.cx, dx, index, dy, 1.0);
    Ok(())
}

/// Columns per task: a task goes through all rows for them, so that each sum runs in ascending order.
const COLUMNS: usize = 64;

/// `to[index[m]] += scale from[m]`, in ascending m. Indices are checked.
fn add_rows<T: Element, F: Element>(cx: &mut Context, to: MatMut<T>, index: &[i32], from: Mat<F>, scale: f32) {
    // Sorted by row, then by place, so that each row's sum is rounded once. Rows of `from` are fewer than 2^32: each has an `i32`.
    let (par, order) = (&cx.par, &mut cx.keys);
    order.clear();
    order.extend(index.iter().zip(0u32..).map(|(row, m)| (*row as u64) << 32 | u64::from(m)));
    order.sort_unstable();
    let (row_of, place_of) = (|key: u64| (key >> 32) as usize, |key: u64| key as u32 as usize);
    let order = &order[..];
    par.run(to.cols.div_ceil(COLUMNS), from.rows * from.cols / 4, |task| {
        let col = task * COLUMNS;
        let len = COLUMNS.min(to.cols - col);
        par.wide(
            #[inline(always)]
            || {
                let mut sums = [0.0f32; COLUMNS];
                let sums = &mut sums[..len];
                for terms in order.chunk_by(|a, b| row_of(*a) == row_of(*b)) {
                    // SAFETY: indices are checked; tasks write disjoint columns of `to`, which does not overlap `from`.
                    let to = unsafe { to.span(row_of(terms[0]), col, len) };
                    load_row(sums, to);
                    for key in terms {
                        // SAFETY: as above.
                        add_scaled(sums, scale, unsafe { from.span(place_of(*key), col, len) });
                    }
                    store_row(to, sums);
                }
            },
        );
    });
}
