//! Linear layers that read the same input (query, key, value; gate, up) and write columns of one output.
//!
//! If their weights are adjacent in the flat buffer, one product with the taller matrix computes all of them.

use std::ops::Range;

use crate::model::params::{LinearRef, Table};

/// One product: a block of weight rows, and the output columns that it computes.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::model) struct Piece {
    pub(in crate::model) weight_offset: u64,
    pub(in crate::model) rows: u64,
    pub(in crate::model) bias_offset: Option<u64>,
    pub(in crate::model) column: u64,
    /// The first layer of the block, which determines whether the block is trainable.
    pub(in crate::model) first: LinearKey,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::model) struct LinearKey {
    pub(in crate::model) weight: usize,
    pub(in crate::model) bias: Option<usize>,
}

/// What an adapter adds to a linear map: `scale B A x`, for those of its layers that it adapts.
#[derive(Clone)]
pub(in crate::model) struct Branches {
    /// The first factors `A` of all adapted layers, which read the same input, as one linear map in the adapter's buffer.
    pub inner: Box<Projection>,
    /// The second factors.
    pub outer: Vec<Outer>,
}

/// The second factor `B` of an adapted layer, stored as its transpose: `rank` rows, a column for each output.
#[derive(Debug, Clone)]
pub(in crate::model) struct Outer {
    /// Its place in the adapter's buffer.
    pub offset: u64,
    /// Its columns of the first factors' output.
    pub inner: Range<u64>,
    /// Its columns of the linear map's output.
    pub columns: Range<u64>,
}

/// A linear map made of one or more layers.
#[derive(Clone)]
pub(in crate::model) struct Projection {
    /// Width of the input.
    pub inputs: u64,
    /// Width of the output, all layers together.
    pub outputs: u64,
    pub(in crate::model) fused: Vec<Piece>,
    pub(in crate::model) parts: Vec<Piece>,
    /// What an adapter adds to the output.
    pub branches: Option<Branches>,
}

impl Projection {
    pub(in crate::model) fn new(table: &Table, linears: &[LinearRef]) -> Projection {
        let parameters = table.parameters();
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
        Projection { inputs, outputs, fused, parts, branches: None }
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
