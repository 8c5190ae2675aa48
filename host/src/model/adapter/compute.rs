//! The products of an adapter: what it adds to the output of a linear map, and its part of the backward pass.
//!
//! The second factor is stored as its transpose `[rank, outputs]`, so that the catalogue's product that adds to its output,
//! `dx += dy w`, computes `y += (scale A x) B^T`. `A x` is recomputed in the backward pass: it costs `rank` columns, and keeping it
//! would cost memory in every layer.

use plugin_api::abi::View;
use plugin_api::backend::ops::{Linear, LinearBackwardInput, LinearBackwardWeight, Scale};

use crate::device::{Buffer, Tensor, columns};
use crate::error::{Error, Result};
use crate::model::adapter::Adapter;
use crate::model::compute::projection::Branches;
use crate::model::loaded::Model;

impl Model {
    fn adapter_of_branches(&self) -> Result<&Adapter> {
        self.adapter.as_ref().ok_or_else(|| Error::run("a linear map has an adapter, and the model has none"))
    }

    /// `y += scale B A x`.
    pub(in crate::model) fn add_branches(&self, branches: &Branches, x: View, y: View) -> Result<()> {
        let flat = self.adapter_of_branches()?.weights();
        let inner = self.inner(branches, x)?;
        for outer in &branches.outer {
            self.device.call(&LinearBackwardInput {
                dy: inner.cols(outer.inner.clone()),
                w: outer_factor(flat, outer),
                dx: columns(y, outer.columns.clone()),
                accumulate: true,
            })?;
        }
        Ok(())
    }

    /// `dx += scale dy B A`.
    pub(in crate::model) fn branches_backward_input(&self, branches: &Branches, dy: View, dx: View) -> Result<()> {
        let flat = self.adapter_of_branches()?.weights();
        let dinner = self.inner_cotangent(branches, dy)?;
        for piece in &branches.inner.fused {
            self.device.call(&LinearBackwardInput {
                dy: dinner.cols(piece.column..piece.column + piece.rows),
                w: flat.matrix(piece.weight_offset, piece.rows, branches.inner.inputs),
                dx,
                accumulate: true,
            })?;
        }
        Ok(())
    }

    /// `dB += scale dy^T A x`, `dA += scale B^T dy^T x`.
    pub(in crate::model) fn branches_backward_weight(
        &self,
        branches: &Branches,
        x: View,
        dy: View,
        grads: &Buffer,
    ) -> Result<()> {
        let inner = self.inner(branches, x)?;
        for outer in &branches.outer {
            self.device.call(&LinearBackwardWeight {
                x: columns(dy, outer.columns.clone()),
                dy: inner.cols(outer.inner.clone()),
                dw: outer_factor(grads, outer),
                dbias: None,
            })?;
        }
        let dinner = self.inner_cotangent(branches, dy)?;
        for piece in &branches.inner.fused {
            self.device.call(&LinearBackwardWeight {
                x,
                dy: dinner.cols(piece.column..piece.column + piece.rows),
                dw: grads.matrix(piece.weight_offset, piece.rows, branches.inner.inputs),
                dbias: None,
            })?;
        }
        Ok(())
    }

    /// Returns `scale A x` for all adapted layers of a linear map, side by side.
    fn inner(&self, branches: &Branches, x: View) -> Result<Tensor> {
        let adapter = self.adapter_of_branches()?;
        let y = self.device.tensor(x.rows, branches.inner.outputs)?;
        for piece in &branches.inner.fused {
            self.device.call(&Linear {
                x,
                w: adapter.weights().matrix(piece.weight_offset, piece.rows, branches.inner.inputs),
                bias: None,
                y: y.cols(piece.column..piece.column + piece.rows),
            })?;
        }
        self.scaled(adapter, y)
    }

    /// Returns the cotangent of `A x`, given that of the linear map's output.
    fn inner_cotangent(&self, branches: &Branches, dy: View) -> Result<Tensor> {
        let adapter = self.adapter_of_branches()?;
        let dinner = self.device.tensor(dy.rows, branches.inner.outputs)?;
        for outer in &branches.outer {
            self.device.call(&Linear {
                x: columns(dy, outer.columns.clone()),
                w: outer_factor(adapter.weights(), outer),
                bias: None,
                y: dinner.cols(outer.inner.clone()),
            })?;
        }
        self.scaled(adapter, dinner)
    }

    fn scaled(&self, adapter: &Adapter, x: Tensor) -> Result<Tensor> {
        let alpha = adapter.settings.scale();
        if alpha != 1.0 {
            self.device.call(&Scale { x: x.view(), alpha })?;
        }
        Ok(x)
    }
}

/// The matrix of a second factor inside a flat buffer.
fn outer_factor(flat: &Buffer, outer: &crate::model::compute::projection::Outer) -> View {
    flat.matrix(outer.offset, outer.inner.end - outer.inner.start, outer.columns.end - outer.columns.start)
}
