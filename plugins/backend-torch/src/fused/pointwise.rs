//! Activation functions, plain and gated, with their derivatives.

use super::{
    BLOCK, Rows, blocks_of,
    launch::{Grid, Kernel, Source},
    params::Pointwise,
    wide,
};
use crate::{TorchSession, fault::Attempt};
use plugin_api::backend::{
    View,
    ops::{Activation, ActivationBackward, ActivationKind, Glu, GluBackward},
};

/// `y = f(x)`. Returns whether it computed it, like the functions below.
pub fn activation(s: &TorchSession, op: &Activation) -> Attempt<bool> {
    run(s, "activation", op.kind, [Some(&op.x), None, None], [Some(&op.y), None])
}

/// `dx = dy f'(x)`.
pub fn activation_backward(s: &TorchSession, op: &ActivationBackward) -> Attempt<bool> {
    run(s, "activation_backward", op.kind, [Some(&op.x), Some(&op.dy), None], [Some(&op.dx), None])
}

/// `y = f(gate) up`.
pub fn glu(s: &TorchSession, op: &Glu) -> Attempt<bool> {
    run(s, "glu", op.kind, [Some(&op.gate), Some(&op.up), None], [Some(&op.y), None])
}

/// `dgate = dy up f'(gate)`, `dup = dy f(gate)`.
pub fn glu_backward(s: &TorchSession, op: &GluBackward) -> Attempt<bool> {
    run(s, "glu_backward", op.kind, [Some(&op.gate), Some(&op.up), Some(&op.dy)], [Some(&op.dgate), Some(&op.dup)])
}

/// The number by which `activation.cu` knows the function.
fn number(kind: ActivationKind) -> Option<i32> {
    match kind {
        ActivationKind::GELU_TANH => Some(1),
        ActivationKind::GELU_ERF => Some(2),
        ActivationKind::SILU => Some(3),
        ActivationKind::RELU => Some(4),
        _ => None,
    }
}

/// Runs a kernel on operands of one shape.
fn run(
    s: &TorchSession,
    name: &'static str,
    kind: ActivationKind,
    inputs: [Option<&View>; 3],
    outputs: [Option<&View>; 2],
) -> Attempt<bool> {
    let (Some(kernels), Some(kind), Some(shape)) = (s.kernels(), number(kind), inputs[0]) else { return Ok(false) };
    let (mut rows, mut cols, dtype) = (shape.rows, shape.cols, shape.dtype);
    let all = [inputs[0], inputs[1], inputs[2], outputs[0], outputs[1]];
    if all.iter().flatten().all(|view| view.rows <= 1 || view.row_stride == view.cols) {
        // Without gaps it is one row.
        (rows, cols) = (1, rows * cols);
    }
    let mut operands = [Rows::ABSENT; 5];
    for (operand, view) in operands.iter_mut().zip(all) {
        if let Some(view) = view {
            *operand = Rows::of(s, view)?;
            if rows == 1 {
                *operand = Rows::at(operand.address, operand.stride, 1, dtype);
            }
        }
    }
    let aligned = cols.is_multiple_of(wide(dtype)) && operands.iter().all(|rows| rows.aligned);
    let packs_per_row = if aligned { cols / wide(dtype) } else { cols };
    let [a, b, c, first, second] = operands;
    let params = Pointwise {
        a: a.address,
        b: b.address,
        c: c.address,
        first: first.address,
        second: second.address,
        a_stride: a.stride,
        b_stride: b.stride,
        c_stride: c.stride,
        first_stride: first.stride,
        second_stride: second.stride,
        packs: rows * packs_per_row,
        packs_per_row,
        kind,
        wide: i32::from(aligned),
    };
    let grid = Grid { blocks: blocks_of(params.packs), threads: BLOCK };
    // SAFETY: the operands are views that the session has checked, all of one shape (the catalogue's); a thread reads and writes the
    // elements of one pack below `rows x cols`, and reads before it writes. A kernel reads only the operands that its name has.
    unsafe { kernels.launch(Kernel(Source::Activation, name), dtype, grid, &params)? };
    Ok(true)
}
