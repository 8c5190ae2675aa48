//! Norms of queries and keys, before they are rotated: of each head, as in Qwen 3, or of all heads together, as in OLMo 2.
//!
//! The heads of a token lie side by side in the columns of queries, keys and values. They are copied to a dense tensor, in which
//! what one norm covers is a row.

use std::ops::Range;

use plugin_api::abi::View;
use plugin_api::backend::ops::{Copy, Norm, NormBackward};

use crate::device::{Buffer, Tensor};
use crate::error::Result;
use crate::model::loaded::Model;
use crate::model::params::NormRef;

/// Queries or keys before their norm, `[N, width]`, with the norm's statistics, `[N * heads, 2]` or `[N, 2]`.
pub(super) struct Unnormed {
    x: Tensor,
    stats: Tensor,
}

/// Queries and keys before their norms.
pub(super) type UnnormedHeads = [Unnormed; 2];

impl Model {
    /// Normalises each head of queries and keys in place. Returns what the backward pass reads, if `backward`.
    pub(super) fn norm_heads(
        &self,
        norms: [NormRef; 2],
        qkv: &Tensor,
        backward: bool,
    ) -> Result<Option<UnnormedHeads>> {
        let [queries, keys] = self.head_columns();
        let queries = self.norm_columns(norms[0], qkv, queries, backward)?;
        let keys = self.norm_columns(norms[1], qkv, keys, backward)?;
        Ok(queries.zip(keys).map(|(queries, keys)| [queries, keys]))
    }

    /// Replaces the cotangents of normalised queries and keys by those of the projections' outputs, and adds the gradients of the
    /// norms' gains.
    pub(super) fn norm_heads_backward(
        &self,
        norms: [NormRef; 2],
        unnormed: UnnormedHeads,
        dqkv: &Tensor,
        grads: &Buffer,
    ) -> Result<()> {
        for ((norm, Unnormed { x, stats }), columns) in norms.into_iter().zip(unnormed).zip(self.head_columns()) {
            let d = self.device.tensor(x.row_count(), x.column_count())?;
            self.device.call(&Copy { x: dqkv.cols(columns.clone()), y: d.view() })?;
            let [x, dy] = [&x, &d].map(|dense| self.rows_of(norm, dense));
            let op = NormBackward { x, stats: stats.view(), dy, dx: dy, ..NormBackward::default() };
            self.norm_backward(norm, op, grads)?;
            self.device.call(&Copy { x: d.view(), y: dqkv.cols(columns) })?;
        }
        Ok(())
    }

    fn head_columns(&self) -> [Range<u64>; 2] {
        let (q, k) = (self.config.query_width(), self.config.kv_width());
        [0..q, q..q + k]
    }

    fn norm_columns(
        &self,
        norm: NormRef,
        qkv: &Tensor,
        columns: Range<u64>,
        backward: bool,
    ) -> Result<Option<Unnormed>> {
        let (tokens, width) = (qkv.row_count(), columns.end - columns.start);
        let x = self.device.tensor(tokens, width)?;
        self.device.call(&Copy { x: qkv.cols(columns.clone()), y: x.view() })?;
        let y = self.device.tensor(tokens, width)?;
        let rows = self.rows_of(norm, &x);
        let stats = backward.then(|| self.stats(rows.rows)).transpose()?;
        self.device.call(&Norm {
            x: rows,
            y: self.rows_of(norm, &y),
            stats: stats.as_ref().map(Tensor::view),
            ..self.norm_op(norm)
        })?;
        self.device.call(&Copy { x: y.view(), y: qkv.cols(columns) })?;
        Ok(stats.map(|stats| Unnormed { x, stats }))
    }

    /// A dense tensor of heads side by side, with a row for what the norm covers.
    fn rows_of(&self, norm: NormRef, dense: &Tensor) -> View {
        let width = self.layout.parameters()[norm.weight].cols;
        dense.buffer().matrix(0, dense.row_count() * (dense.column_count() / width), width)
    }
}
