//! Linear layers that read the same input (query, key, value; gate, up) and write columns of one output.
//!
//! Where their weights lie side by side in the flat buffer, one product over the taller view serves them all.

use plugin_api::abi::View;
use plugin_api::backend::ops::{Linear, LinearBackwardInput, LinearBackwardWeight};

use super::Model;
use super::params::{Layout, LinearRef};
use crate::device::{Buffer, columns};
use crate::error::Result;

/// One product: a block of weight rows, and the output columns it makes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    weight_offset: u64,
    rows: u64,
    bias_offset: Option<u64>,
    column: u64,
    /// One layer of the block, whose trainability stands for all of them.
    first: LinearKey,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct LinearKey {
    weight: usize,
    bias: Option<usize>,
}

/// A linear map made of one or more layers.
pub(super) struct Projection {
    /// Width of the input.
    pub inputs: u64,
    /// Width of the output, all layers together.
    pub outputs: u64,
    fused: Vec<Piece>,
    parts: Vec<Piece>,
}

impl Projection {
    pub(super) fn new(layout: &Layout, linears: &[LinearRef]) -> Projection {
        let parameters = layout.parameters();
        let mut parts: Vec<Piece> = Vec::with_capacity(linears.len());
        let (mut inputs, mut outputs) = (0, 0);
        for linear in linears {
            let weight = &parameters[linear.weight];
            parts.push(Piece {
                weight_offset: weight.offset,
                rows: weight.rows,
                bias_offset: linear.bias.map(|bias| parameters[bias].offset),
                column: outputs,
                first: LinearKey { weight: linear.weight, bias: linear.bias },
            });
            inputs = weight.cols;
            outputs += weight.rows;
        }
        let mut fused: Vec<Piece> = Vec::new();
        for part in &parts {
            match fused.last_mut().filter(|last| adjacent(last, part, inputs)) {
                Some(last) => last.rows += part.rows,
                None => fused.push(part.clone()),
            }
        }
        Projection { inputs, outputs, fused, parts }
    }

    /// The pieces for weight gradients: blocks only where all layers learn alike.
    fn gradient_pieces(&self, model: &Model) -> &[Piece] {
        let learns = |part: &Piece| {
            (model.trainable[part.first.weight], part.first.bias.is_some_and(|bias| model.trainable[bias]))
        };
        let alike = self.parts.windows(2).all(|pair| learns(&pair[0]) == learns(&pair[1]));
        if alike { &self.fused } else { &self.parts }
    }
}

/// Whether `part` continues the block `last` in weights, biases and output columns.
fn adjacent(last: &Piece, part: &Piece, inputs: u64) -> bool {
    let biases = match (last.bias_offset, part.bias_offset) {
        (None, None) => true,
        (Some(last_bias), Some(bias)) => last_bias + last.rows == bias,
        _ => false,
    };
    biases && last.weight_offset + last.rows * inputs == part.weight_offset
}

impl Model {
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
        Ok(())
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
        Ok(())
    }

    /// `dw += dy^T x`, `dbias += sum dy` for the layers that learn.
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
            // The operation always forms the weight's gradient; where only the bias learns it goes to scratch.
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
        Ok(())
    }
}
