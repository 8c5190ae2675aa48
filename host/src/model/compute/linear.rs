//! The matrix products of linear layers that read the same input, forward and backward.

use plugin_api::abi::View;
use plugin_api::backend::ops::{Linear, LinearBackwardInput, LinearBackwardWeight};

use super::projection::{Piece, Projection};
use crate::device::{Buffer, columns};
use crate::error::Result;
use crate::model::loaded::Model;

impl Projection {
    /// Returns the pieces for weight gradients: fused blocks only if all layers have the same trainable parameters.
    fn gradient_pieces(&self, model: &Model) -> &[Piece] {
        let learns = |part: &Piece| {
            (model.trainable[part.first.weight], part.first.bias.is_some_and(|bias| model.trainable[bias]))
        };
        let alike = self.parts.windows(2).all(|pair| learns(&pair[0]) == learns(&pair[1]));
        if alike { &self.fused } else { &self.parts }
    }
}

impl Model {
    /// Whether the backward pass of the weights reads the projection's input: a weight is trainable, or it has an adapter.
    pub(super) fn learns(&self, projection: &Projection) -> bool {
        let trainable = |part: &Piece| {
            self.trainable[part.first.weight] || part.first.bias.is_some_and(|bias| self.trainable[bias])
        };
        projection.branches.is_some() || projection.parts.iter().any(trainable)
    }

    /// `y = x w^T + bias` for all layers of the projection.
    pub(super) fn project(&self, projection: &Projection, x: View, y: View) -> Result<()> {
        let flat = self.weights();
        for piece in &projection.fused {
            self.device.call(&Linear {
                x,
                w: flat.matrix(piece.weight_offset, piece.rows, projection.inputs),
                bias: piece.bias_offset.map(|offset| flat.matrix(offset, 1, piece.rows)),
                y: columns(y, piece.column..piece.column + piece.rows),
            })?;
        }
        projection.branches.as_ref().map_or(Ok(()), |branches| self.add_branches(branches, x, y))
    }

    /// `dx = dy w`, summed over the layers of the projection.
    pub(super) fn project_backward_input(&self, projection: &Projection, dy: View, dx: View) -> Result<()> {
        let flat = self.weights();
        for (index, piece) in projection.fused.iter().enumerate() {
            self.device.call(&LinearBackwardInput {
                dy: columns(dy, piece.column..piece.column + piece.rows),
                w: flat.matrix(piece.weight_offset, piece.rows, projection.inputs),
                dx,
                accumulate: index > 0,
            })?;
        }
        projection.branches.as_ref().map_or(Ok(()), |branches| self.branches_backward_input(branches, dy, dx))
    }

    /// `dw += dy^T x`, `dbias += sum dy` for trainable layers.
    pub(super) fn project_backward_weight(
        &self,
        projection: &Projection,
        x: View,
        dy: View,
        grads: &Buffer,
    ) -> Result<()> {
        for piece in projection.gradient_pieces(self) {
            let weight_learns = self.trainable[piece.first.weight];
            let bias_learns = piece.first.bias.is_some_and(|bias| self.trainable[bias]);
            if !weight_learns && !bias_learns {
                continue;
            }
            // The operation always computes the weight's gradient; if only the bias is trainable, it goes to a scratch buffer.
            let scratch = (!weight_learns)
                .then(|| self.device.tensor_of(self.device.accumulator(), piece.rows, projection.inputs))
                .transpose()?;
            let dbias = piece.bias_offset.filter(|_| bias_learns).map(|offset| grads.matrix(offset, 1, piece.rows));
            self.device.call(&LinearBackwardWeight {
                x,
                dy: columns(dy, piece.column..piece.column + piece.rows),
                dw: match &scratch {
                    Some(scratch) => scratch.view(),
                    None => grads.matrix(piece.weight_offset, piece.rows, projection.inputs),
                },
                dbias,
            })?;
        }
        projection.branches.as_ref().map_or(Ok(()), |branches| self.branches_backward_weight(branches, x, dy, grads))
    }
}
