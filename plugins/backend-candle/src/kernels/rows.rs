//! Operations that select or scatter rows: embeddings and row gathers.

use crate::check;
use crate::kernels::{
    context::Kernels,
    primitives::{
        math::add_scaled,
        operand::{Mat, MatMut},
        parallel::Parallel,
    },
};
use plugin_api::{
    Error, Result,
    backend::ops::{Embedding, EmbeddingBackward, GatherRows, ScatterAddRows},
};

plugin_api::operations! {
    RowOps for Kernels<'_>:
    embedding Embedding => embedding,
    embedding_backward EmbeddingBackward => embedding_backward,
    gather_rows GatherRows => gather,
    scatter_add_rows ScatterAddRows => scatter_add,
}

/// `y[n] = scale table[ids[n]] + position_table[positions[n]]`.
pub fn embedding(s: &mut Kernels<'_>, op: &Embedding) -> Result<()> {
    let (ids, table) = (s.ints(&op.ids)?, s.input(&op.table)?);
    check::indices("embedding", "ids", ids, table.rows)?;
    let positions = match (&op.positions, &op.position_table) {
        (Some(positions), Some(rows)) => {
            let (positions, rows) = (s.ints(positions)?, s.input(rows)?);
            check::indices("embedding", "positions", positions, rows.rows)?;
            Some((positions, rows))
        }
        (None, None) => None,
        _ => return Err(Error::invalid("embedding: `positions` and `position_table` must be given together")),
    };
    let (y, scale) = (s.output(&op.y)?, op.scale as f32);
    let par = &s.cx.par;
    par.rows(y.rows, y.cols, 300, |n| {
        par.wide(
            #[inline(always)]
            || {
                // SAFETY: indices are checked; rows of `y` are disjoint and do not overlap the tables (alias rules).
                let (y, row) = unsafe { (y.row(n), table.row(ids[n] as usize)) };
                y.iter_mut().zip(row).for_each(|(y, x)| *y = scale * x);
                if let Some((positions, rows)) = positions {
                    // SAFETY: as above.
                    let row = unsafe { rows.row(positions[n] as usize) };
                    y.iter_mut().zip(row).for_each(|(y, x)| *y += x);
                }
            },
        );
    });
    Ok(())
}

/// `dtable[ids[n]] += scale dy[n]`.
pub fn embedding_backward(s: &mut Kernels<'_>, op: &EmbeddingBackward) -> Result<()> {
    let (ids, dy) = (s.ints(&op.ids)?, s.input(&op.dy)?);
    check::indices("embedding_backward", "ids", ids, op.dtable.rows as usize)?;
    let dtable = s.output(&op.dtable)?;
    add_rows(&s.cx.par, dtable, ids, dy, op.scale as f32);
    Ok(())
}

/// `y[m] = x[index[m]]`.
pub fn gather(s: &mut Kernels<'_>, op: &GatherRows) -> Result<()> {
    let (x, index) = (s.input(&op.x)?, s.ints(&op.index)?);
    check::indices("gather_rows", "index", index, x.rows)?;
    let y = s.output(&op.y)?;
    s.cx.par.rows(y.rows, y.cols, 200, |m| {
        // SAFETY: indices are checked; rows of `y` are disjoint and do not overlap `x`.
        unsafe { y.row(m).copy_from_slice(x.row(index[m] as usize)) };
    });
    Ok(())
}

/// `dx[index[m]] += dy[m]`.
pub fn scatter_add(s: &mut Kernels<'_>, op: &ScatterAddRows) -> Result<()> {
    let (index, dy) = (s.ints(&op.index)?, s.input(&op.dy)?);
    check::indices("scatter_add_rows", "index", index, op.dx.rows as usize)?;
    let dx = s.output(&op.dx)?;
    add_rows(&s.cx.par, dx, index, dy, 1.0);
    Ok(())
}

/// Columns per task: a task goes through all rows for them, so that each sum runs in ascending order.
const COLUMNS: usize = 64;

/// `to[index[m]] += scale from[m]`, in ascending m. Indices are checked.
fn add_rows(par: &Parallel, to: MatMut, index: &[i32], from: Mat, scale: f32) {
    par.run(to.cols.div_ceil(COLUMNS), from.rows * from.cols / 4, |task| {
        let col = task * COLUMNS;
        let len = COLUMNS.min(to.cols - col);
        par.wide(
            #[inline(always)]
            || {
                for (m, &row) in index.iter().enumerate() {
                    // SAFETY: indices are checked; tasks write disjoint columns of `to`, which does not overlap `from`.
                    let (to, from) = unsafe { (to.span(row as usize, col, len), from.span(m, col, len)) };
                    add_scaled(to, scale, from);
                }
            },
        );
    });
}
