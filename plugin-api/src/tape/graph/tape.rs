//! The tape: the list of nodes, the function that adds to it, and the author's handle to a value. The operations are in `ops`.

use std::cell::{Ref, RefCell};
use std::fmt;

use ndarray::ArrayD;

use super::node::{Node, flat};
use super::rule::Rule;
use super::value::IntoValue;
use crate::tape::error::TapeError;
use crate::tape::kind::OpKind;
use crate::tape::mask::{Id, ids};

/// Records what is computed from its inputs, for the backward pass. One tape per call of a loss.
#[derive(Default)]
pub struct Tape {
    state: RefCell<State>,
}

/// A value on a tape. Cheap to copy: it holds no numbers itself.
#[derive(Clone, Copy)]
pub struct Var<'t> {
    pub(in crate::tape) tape: &'t Tape,
    pub(in crate::tape) index: usize,
}

#[derive(Default)]
pub(in crate::tape) struct State {
    pub(in crate::tape) nodes: Vec<Node>,
    /// `offsets[s]..offsets[s + 1]` are the tokens of sequence `s`.
    offsets: Option<Vec<usize>>,
    pub(in crate::tape) error: Option<TapeError>,
}

/// The index of variables created after the tape's first error.
pub(in crate::tape) const POISONED: usize = usize::MAX;

impl Tape {
    /// An empty tape without sequences, for plain vectors of tokens or anything else.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty tape for packed sequences: tokens `offsets[s]..offsets[s + 1]` are sequence `s`. There are S + 1 entries: the
    /// first is 0, the last N, and none is smaller than the one before. Any other `offsets` are the tape's first error.
    pub fn with_offsets<T: Id>(offsets: &[T]) -> Self {
        let (offsets, error) = match read_offsets(offsets) {
            Ok(offsets) => (Some(offsets), None),
            Err(error) => (None, Some(error)),
        };
        Self { state: RefCell::new(State { nodes: Vec::new(), offsets, error }) }
    }

    /// A constant, without gradient: reference log-probabilities, advantages, rewards.
    pub fn constant(&self, value: impl IntoValue) -> Var<'_> {
        let value = value.into_value();
        self.record(OpKind::Constant, &[], |_| {
            Ok((at_most_matrix(OpKind::Constant, value?)?, Rule::Stop { operands: Vec::new() }))
        })
    }

    /// An input, for which a gradient is computed. [`Gradients`](crate::tape::Gradients) list it under `name`, which must be new
    /// to the tape.
    pub fn input(&self, name: impl Into<String>, value: impl IntoValue) -> Var<'_> {
        let (name, value) = (name.into(), value.into_value());
        self.record(OpKind::Input, &[], |state| {
            if state.nodes.iter().any(|node| matches!(&node.rule, Rule::Input { name: other } if *other == name)) {
                return Err(TapeError::DuplicateInput(name));
            }
            Ok((at_most_matrix(OpKind::Input, value?)?, Rule::Input { name }))
        })
    }

    /// The first mistake made on this tape, if any.
    ///
    /// # Errors
    /// That mistake.
    pub fn finish(&self) -> Result<(), TapeError> {
        self.state.borrow().error.clone().map_or(Ok(()), Err)
    }

    pub(in crate::tape) fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    /// Adds the node that `build` creates, or keeps its error if it is the tape's first.
    pub(in crate::tape) fn record<'t>(
        &'t self,
        kind: OpKind,
        operands: &[Var<'t>],
        build: impl FnOnce(&State) -> Result<(ArrayD<f64>, Rule), TapeError>,
    ) -> Var<'t> {
        let state = &mut *self.state.borrow_mut();
        if state.error.is_some() {
            return Var { tape: self, index: POISONED };
        }
        let foreign = operands.iter().any(|operand| !std::ptr::eq(operand.tape, self));
        let built = if foreign { Err(TapeError::ForeignVar { op: kind.name() }) } else { build(state) };
        match built {
            Ok((value, rule)) => {
                let differentiable = match &rule {
                    Rule::Input { .. } => true,
                    Rule::Stop { .. } => false,
                    rule => rule.operands().iter().any(|operand| state.nodes[*operand].differentiable),
                };
                state.nodes.push(Node { kind, value: standard(value), rule, differentiable });
                Var { tape: self, index: state.nodes.len() - 1 }
            }
            Err(error) => {
                state.error = Some(error);
                Var { tape: self, index: POISONED }
            }
        }
    }
}

impl State {
    /// The value of a variable that [`Tape::record`] has found to be this tape's.
    pub(in crate::tape) fn value(&self, var: Var<'_>) -> &ArrayD<f64> {
        &self.nodes[var.index].value
    }

    /// The same, flat in row-major order.
    pub(in crate::tape) fn flat(&self, var: Var<'_>) -> &[f64] {
        flat(self.value(var))
    }

    /// The sequences' offsets.
    pub(in crate::tape) fn offsets(&self, op: OpKind) -> Result<&[usize], TapeError> {
        self.offsets.as_deref().ok_or(TapeError::NoOffsets { op })
    }
}

fn standard(value: ArrayD<f64>) -> ArrayD<f64> {
    if value.is_standard_layout() { value } else { value.as_standard_layout().into_owned() }
}

fn at_most_matrix(op: OpKind, value: ArrayD<f64>) -> Result<ArrayD<f64>, TapeError> {
    if value.ndim() <= 2 {
        return Ok(value);
    }
    Err(TapeError::Rank { op, expected: "a scalar, a vector or a matrix", found: value.shape().to_vec() })
}

fn read_offsets<T: Id>(offsets: &[T]) -> Result<Vec<usize>, TapeError> {
    let offsets = ids(OpKind::SeqSum, "offsets", offsets).map_err(|error| TapeError::Offsets(error.to_string()))?;
    if offsets.first() != Some(&0) {
        return Err(TapeError::Offsets(format!("the first must be 0, found {:?}", offsets.first())));
    }
    if let Some(at) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
        return Err(TapeError::Offsets(format!("{} at {} is followed by {}", offsets[at], at, offsets[at + 1])));
    }
    let unaddressable = |_| TapeError::Offsets("an offset exceeds this machine's address space".to_owned());
    offsets.into_iter().map(|offset| usize::try_from(offset).map_err(unaddressable)).collect()
}

impl fmt::Debug for Tape {
    /// One variable per line, in the order in which they were created.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        writeln!(f, "Tape of {} variables", state.nodes.len())?;
        for (index, node) in state.nodes.iter().enumerate() {
            writeln!(f, "  {}", node.describe(index))?;
        }
        match &state.error {
            Some(error) => writeln!(f, "  error: {error}"),
            None => Ok(()),
        }
    }
}
