//! A node of the tape: its value and its rule.

use ndarray::{ArrayD, IxDyn};

use super::rule::Rule;
use crate::tape::kind::OpKind;

pub(in crate::tape) struct Node {
    pub(in crate::tape) kind: OpKind,
    /// Always in standard (row-major, contiguous) layout, with at most two axes.
    pub(in crate::tape) value: ArrayD<f64>,
    pub(in crate::tape) rule: Rule,
    /// Whether it depends on any input; the backward pass skips nodes that do not.
    pub(in crate::tape) differentiable: bool,
}

impl Node {
    /// `#5 log_sigmoid(#4) [3] = [-0.69, -0.31, -1.2]`; long vectors are truncated.
    pub(in crate::tape) fn describe(&self, index: usize) -> String {
        const SHOWN: usize = 8;
        let operands: Vec<_> = self.rule.operands().iter().map(|operand| format!("#{operand}")).collect();
        let operands = match &self.rule {
            Rule::Input { name } => format!(" {name:?}"),
            _ if operands.is_empty() => String::new(),
            _ => format!("({})", operands.join(", ")),
        };
        let shape = self.value.shape();
        let values = if self.value.len() <= SHOWN {
            self.value.to_string().replace('\n', "")
        } else {
            let first: Vec<_> = flat(&self.value)[..SHOWN].iter().map(f64::to_string).collect();
            format!("[{}, ... {} more]", first.join(", "), self.value.len() - SHOWN)
        };
        format!("#{index} {}{operands} {shape:?} = {values}", self.kind)
    }
}

/// A node's numbers in row-major order.
pub(in crate::tape) fn flat(value: &ArrayD<f64>) -> &[f64] {
    value.as_slice().expect("`record` stores standard layout only")
}

/// An array of `shape` from numbers that an operation computed for that shape.
pub(in crate::tape) fn array(shape: &[usize], flat: Vec<f64>) -> ArrayD<f64> {
    ArrayD::from_shape_vec(IxDyn(shape), flat).expect("an operation fills its own shape")
}
