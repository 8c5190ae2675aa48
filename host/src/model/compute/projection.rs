//! Linear layers that read the same input (query, key, value; gate, up) and write columns of one output.
//!
//! If their weights are adjacent in the flat buffer, one product with the taller matrix computes all of them.

use crate::model::params::{Layout, LinearRef};

/// One product: a block of weight rows, and the output columns that it computes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) weight_offset: u64,
    pub(super) rows: u64,
    pub(super) bias_offset: Option<u64>,
    pub(super) column: u64,
    /// The first layer of the block, which determines whether the block is trainable.
    pub(super) first: LinearKey,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LinearKey {
    pub(super) weight: usize,
    pub(super) bias: Option<usize>,
}

/// A linear map made of one or more layers.
pub(in crate::model) struct Projection {
    /// Width of the input.
    pub inputs: u64,
    /// Width of the output, all layers together.
    pub outputs: u64,
    pub(super) fused: Vec<Piece>,
    pub(super) parts: Vec<Piece>,
}

impl Projection {
    pub(in crate::model) fn new(layout: &Layout, linears: &[LinearRef]) -> Projection {
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
