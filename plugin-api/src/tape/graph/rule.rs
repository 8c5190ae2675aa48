//! How a node follows from its operands: what the walk backwards needs to know of each.

use crate::tape::elementwise::{Function, Pairwise};

/// How a node came from its operands (indices into the tape). Many operations share a rule: everything that copies
/// elements is a `Gather`, everything that adds them up a `Scatter`.
pub(in crate::tape) enum Rule {
    /// A leaf that is differentiated by.
    Input { name: String },
    /// Nothing flows back: constants, detached values, comparisons.
    Stop { operands: Vec<usize> },
    /// Element by element.
    Map { function: Function, x: usize },
    /// Element by element of two, with scalar broadcast.
    Pairwise { function: Pairwise, a: usize, b: usize },
    /// `a` where the bit is set, else `b`, with scalar broadcast.
    Select { bits: Vec<bool>, a: usize, b: usize },
    /// Element `i` is element `index[i]` of `x`.
    Gather { x: usize, index: Vec<usize> },
    /// Element `s` is the sum of the elements `i` of `x` with `segment[i] == s`, divided by `divisor[s]`.
    Scatter { x: usize, segment: Vec<usize>, divisor: Vec<f64> },
    /// The parts' elements one after the other.
    Concat { parts: Vec<usize> },
    /// `log(sum(exp(.)))` over the last axis, of length `width`.
    LogSumExp { x: usize, width: usize },
    /// `[rows, inner] x [inner, columns]`.
    Matmul { a: usize, b: usize, inner: usize, columns: usize },
}

/// The segment of an element that takes no part in a sum.
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

/// `cotangent * derivative`, where a cotangent of exactly zero stays zero whatever the derivative: an entry that a mask left
/// out must not turn 0 * inf into NaN.
pub(in crate::tape) fn chain(cotangent: f64, derivative: f64) -> f64 {
    if cotangent == 0.0 { 0.0 } else { cotangent * derivative }
}
