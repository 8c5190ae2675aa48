//! How a node is computed from its operands, as far as the backward pass needs it.

use crate::tape::elementwise::{Function, Pairwise};

/// How a node was computed from its operands (indices into the tape). Many operations share a rule: those that copy elements are a
/// `Gather`, those that add elements up a `Scatter`.
pub(in crate::tape) enum Rule {
    /// A leaf for which a gradient is computed.
    Input { name: String },
    /// No cotangent is passed on: constants, detached values, comparisons.
    Stop { operands: Vec<usize> },
    /// Element by element.
    Map { function: Function, x: usize },
    /// Element by element of two operands, with scalar broadcast.
    Pairwise { function: Pairwise, a: usize, b: usize },
    /// `a` where the bit is set, else `b`, with scalar broadcast.
    Select { bits: Vec<bool>, a: usize, b: usize },
    /// Element `i` is element `index[i]` of `x`.
    Gather { x: usize, index: Vec<usize> },
    /// Element `s` is the sum of the elements `i` of `x` with `segment[i] == s`, divided by `divisor[s]`.
    Scatter { x: usize, segment: Vec<usize>, divisor: Vec<f64> },
    /// The parts' elements in sequence.
    Concat { parts: Vec<usize> },
    /// `log(sum(exp(.)))` over the last axis, of length `width`.
    LogSumExp { x: usize, width: usize },
    /// `[rows, inner] x [inner, columns]`.
    Matmul { a: usize, b: usize, inner: usize, columns: usize },
}

/// The segment of an element that is left out of a sum.
pub(in crate::tape) const NO_SEGMENT: usize = usize::MAX;

impl Rule {
    pub(in crate::tape) fn operands(&self) -> Vec<usize> {
        match self {
            Rule::Input { .. } => Vec::new(),
            Rule::Stop { operands } => operands.clone(),
            Rule::Map { x, .. } | Rule::Gather { x, .. } | Rule::Scatter { x, .. } | Rule::LogSumExp { x, .. } => {
                vec![*x]
            }
            Rule::Pairwise { a, b, .. } | Rule::Select { a, b, .. } | Rule::Matmul { a, b, .. } => vec![*a, *b],
            Rule::Concat { parts } => parts.clone(),
        }
    }
}

/// `cotangent * derivative`, where a cotangent of exactly zero stays zero whatever the derivative is: an entry that a mask left
/// out must not turn 0 * inf into NaN.
pub(in crate::tape) fn chain(cotangent: f64, derivative: f64) -> f64 {
    if cotangent == 0.0 { 0.0 } else { cotangent * derivative }
}
