//! Embedding tables: rows by token id and position, and the gradient added back.

use super::data::add_rows;
use crate::{
    TorchSession,
    fault::{Attempt, Done, require},
    storage::to,
};
use plugin_api::backend::ops::{Embedding, EmbeddingBackward};

plugin_api::operations! {
    RowOps for TorchSession:
    embedding Embedding => forward,
    embedding_backward EmbeddingBackward => backward,
    gather_rows GatherRows => super::data::gather_rows,
    scatter_add_rows ScatterAddRows => super::data::scatter_add_rows,
}

/// `y[n] = scale table[ids[n]] + position_table[positions[n]]`.
pub fn forward(s: &mut TorchSession, op: &Embedding) -> Attempt {
    require(op.positions.is_some() == op.position_table.is_some(), "embedding", || {
        "`positions` and `position_table` must be given together".into()
    })?;
    let ids = s.index("embedding", "ids", &op.ids, op.table.rows)?;
    let mut y = s.at(&op.y)?;
    s.at(&op.table)?.f_index_select_out(&y, 0, &ids).done()?;
    if op.scale != 1.0 {
        y.f_mul_scalar_(op.scale).done()?;
    }
    if let (Some(positions), Some(table)) = (&op.positions, &op.position_table) {
        let positions = s.index("embedding", "positions", positions, table.rows)?;
        y.f_add_(&s.at(table)?.f_index_select(0, &positions)?).done()?;
    }
    Ok(())
}

/// `dtable[ids[n]] += scale dy[n]`.
pub fn backward(s: &mut TorchSession, op: &EmbeddingBackward) -> Attempt {
    let ids = s.index("embedding_backward", "ids", &op.ids, op.dtable.rows)?;
    let mut dtable = s.at(&op.dtable)?;
    let mut dy = to(&s.at(&op.dy)?, dtable.f_kind()?)?;
    if op.scale != 1.0 {
        dy = dy.f_mul_scalar(op.scale)?;
    }
    add_rows(s, &mut dtable, &ids, &dy)
}
