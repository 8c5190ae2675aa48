//! The rows of the hidden states that pass a head, and the way back of their cotangents.

use plugin_api::backend::ops::{Axpy, Fill, ScatterAddRows};

use crate::device::Tensor;
use crate::error::Result;
use crate::model::loaded::Model;

/// The M rows of N hidden states that pass a head.
pub(super) struct HeadRows {
    /// Their hidden states, `[M, D]`.
    pub x: Tensor,
    /// Their indices among the N rows; `None`: all of them.
    index: Option<Tensor>,
    tokens: u64,
}

impl Model {
    /// Gathers the hidden states of `rows`; `None`: all.
    pub(super) fn head_rows(&self, hidden: &Tensor, rows: Option<&[i32]>) -> Result<HeadRows> {
        let tokens = hidden.row_count();
        let Some(rows) = rows else { return Ok(HeadRows { x: hidden.clone(), index: None, tokens }) };
        let (x, index) = self.gathered(hidden, rows)?;
        Ok(HeadRows { x, index: Some(index), tokens })
    }

    /// Adds the rows' cotangents `dy` to `dhidden`, the cotangent of all N hidden states, or to zeros if `dhidden` is `None`.
    pub(super) fn head_rows_backward(&self, rows: &HeadRows, dy: Tensor, dhidden: Option<Tensor>) -> Result<Tensor> {
        let sum = match (dhidden, &rows.index) {
            (None, None) => return Ok(dy),
            (Some(sum), None) => {
                self.device.call(&Axpy { x: dy.view(), y: sum.view(), alpha: 1.0 })?;
                return Ok(sum);
            }
            (Some(sum), Some(_)) => sum,
            (None, Some(_)) => {
                let zeros = self.device.tensor(rows.tokens, self.config.dim)?;
                self.device.call(&Fill { x: zeros.view(), value: 0.0 })?;
                zeros
            }
        };
        if let Some(index) = &rows.index {
            self.device.call(&ScatterAddRows { index: index.view(), dy: dy.view(), dx: sum.view() })?;
        }
        Ok(sum)
    }
}
