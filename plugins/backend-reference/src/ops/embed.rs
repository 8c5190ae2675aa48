//! Embedding tables: rows by token id and position, and the gradient scattered back.

use crate::{
    Reference,
    matrix::{Matrix, axpy},
    session::require,
};
use plugin_api::{
    Result,
    backend::ops::{Embedding, EmbeddingBackward},
};

plugin_api::operations! {
    RowOps for Reference:
    embedding Embedding => forward,
    embedding_backward EmbeddingBackward => backward,
    gather_rows GatherRows => super::data::gather_rows,
    scatter_add_rows ScatterAddRows => super::data::scatter_add_rows,
}

/// `y[n] = scale table[ids[n]] + position_table[positions[n]]`.
pub fn forward(s: &mut Reference, op: &Embedding) -> Result<()> {
    require(op.positions.is_some() == op.position_table.is_some(), "embedding", || {
        "`positions` and `position_table` must be given together".into()
    })?;
    let table = s.read(&op.table)?;
    let ids = s.indices("embedding", "ids", &op.ids, table.rows)?;
    let mut y = Matrix::zeros(ids.len(), table.cols);
    for (n, &id) in ids.iter().enumerate() {
        axpy(y.row_mut(n), op.scale, table.row(id));
    }
    if let (Some(positions), Some(position_table)) = (&op.positions, &op.position_table) {
        let position_table = s.read(position_table)?;
        let positions = s.indices("embedding", "positions", positions, position_table.rows)?;
        for (n, &position) in positions.iter().enumerate() {
            axpy(y.row_mut(n), 1.0, position_table.row(position));
        }
    }
    s.write(&op.y, &y)
}

/// `dtable[ids[n]] += scale dy[n]`.
pub fn backward(s: &mut Reference, op: &EmbeddingBackward) -> Result<()> {
    let mut dtable = s.read(&op.dtable)?;
    let dy = s.read(&op.dy)?;
    let ids = s.indices("embedding_backward", "ids", &op.ids, dtable.rows)?;
    for (n, &id) in ids.iter().enumerate() {
        axpy(dtable.row_mut(id), op.scale, dy.row(n));
    }
    s.write(&op.dtable, &dtable)
}
