//! Operations that select, scatter or rotate rows: embeddings, gathers, rotary.

use super::context::{Generic, Outcome};
use crate::{check, kernels::rotary::head_dim};
use candle_core::{D, Tensor};
use plugin_api::{
    Error,
    backend::{
        View,
        ops::{Embedding, EmbeddingBackward, GatherRows, Rotary, ScatterAddRows},
    },
};

plugin_api::operations! {
    RowOps for Generic<'_>:
    embedding Embedding => embedding,
    embedding_backward EmbeddingBackward => embedding_backward,
    gather_rows GatherRows => gather,
    scatter_add_rows ScatterAddRows => scatter_add,
}

/// The rows of `table` selected by the checked `ids`.
fn pick(s: &Generic<'_>, table: &View, ids: &[i32]) -> Outcome<Tensor> {
    Ok(s.input(table)?.contiguous()?.index_select(&s.index(ids)?, 0)?)
}

/// `to[ids[n]] += from[n]`, in ascending n on the processor.
fn scatter(s: &mut Generic<'_>, to: &View, ids: &[i32], from: &Tensor) -> Outcome {
    if to.is_empty() || ids.is_empty() {
        return Ok(());
    }
    let sum = s.input(to)?.contiguous()?.index_add(&s.index(ids)?, &from.contiguous()?, 0)?;
    s.output(to, &sum)
}

/// `y[n] = scale table[ids[n]] + position_table[positions[n]]`.
pub fn embedding(s: &mut Generic<'_>, op: &Embedding) -> Outcome {
    let ids = s.ints(&op.ids)?;
    check::indices("embedding", "ids", &ids, op.table.rows as usize)?;
    let places = match (&op.positions, &op.position_table) {
        (Some(positions), Some(table)) => {
            let positions = s.ints(positions)?;
            check::indices("embedding", "positions", &positions, table.rows as usize)?;
            Some((positions, table))
        }
        (None, None) => None,
        _ => return Err(Error::invalid("embedding: `positions` and `position_table` must be given together").into()),
    };
    if op.y.is_empty() {
        return Ok(());
    }
    let mut y = pick(s, &op.table, &ids)?.affine(op.scale, 0.0)?;
    if let Some((positions, table)) = places {
        y = (y + pick(s, table, &positions)?)?;
    }
    s.output(&op.y, &y)
}

/// `dtable[ids[n]] += scale dy[n]`.
pub fn embedding_backward(s: &mut Generic<'_>, op: &EmbeddingBackward) -> Outcome {
    let ids = s.ints(&op.ids)?;
    check::indices("embedding_backward", "ids", &ids, op.dtable.rows as usize)?;
    let dy = s.input(&op.dy)?.affine(op.scale, 0.0)?;
    scatter(s, &op.dtable, &ids, &dy)
}

/// `y[m] = x[index[m]]`.
pub fn gather(s: &mut Generic<'_>, op: &GatherRows) -> Outcome {
    let index = s.ints(&op.index)?;
    check::indices("gather_rows", "index", &index, op.x.rows as usize)?;
    if op.y.is_empty() {
        return Ok(());
    }
    let y = pick(s, &op.x, &index)?;
    s.output(&op.y, &y)
}

/// `dx[index[m]] += dy[m]`.
pub fn scatter_add(s: &mut Generic<'_>, op: &ScatterAddRows) -> Outcome {
    let index = s.ints(&op.index)?;
    check::indices("scatter_add_rows", "index", &index, op.dx.rows as usize)?;
    let dy = s.input(&op.dy)?;
    scatter(s, &op.dx, &index, &dy)
}

/// Rotates each head's pairs by the angle of the token's position.
pub fn rotary(s: &mut Generic<'_>, op: &Rotary) -> Outcome {
    let width = head_dim(op)?;
    let positions = s.ints(&op.positions)?;
    check::indices("rotary", "positions", &positions, op.cos.rows as usize)?;
    if op.x.is_empty() {
        return Ok(());
    }
    let (n, heads, pairs) = (op.x.rows as usize, op.x.cols as usize / width, op.cos.cols as usize);
    let x = s.input(&op.x)?;
    if pairs == 0 {
        return s.output(&op.y, &x.copy()?);
    }
    let x = x.reshape((n, heads, width))?;
    let cos = pick(s, &op.cos, &positions)?.unsqueeze(1)?;
    let sin = pick(s, &op.sin, &positions)?.affine(if op.inverse { -1.0 } else { 1.0 }, 0.0)?.unsqueeze(1)?;
    let turned = x.narrow(2, 0, 2 * pairs)?;
    let (a, b) = if op.interleaved {
        let paired = turned.reshape((n, heads, pairs, 2))?;
        (paired.narrow(3, 0, 1)?.squeeze(3)?, paired.narrow(3, 1, 1)?.squeeze(3)?)
    } else {
        (turned.narrow(2, 0, pairs)?, turned.narrow(2, pairs, pairs)?)
    };
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    let turned = if op.interleaved {
        Tensor::stack(&[first, second], 3)?.reshape((n, heads, 2 * pairs))?
    } else {
        Tensor::cat(&[first, second], D::Minus1)?
    };
    let rest = width - 2 * pairs;
    let y = if rest > 0 { Tensor::cat(&[turned, x.narrow(2, 2 * pairs, rest)?], D::Minus1)? } else { turned };
    s.output(&op.y, &y.reshape((n, heads * width))?)
}
