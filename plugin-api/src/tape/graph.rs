//! The tape itself: the list of nodes, and the one function that adds to it. The operations are in the sibling files.

use std::cell::{Ref, RefCell};
use std::fmt;

use ndarray::{Array0, Array1, ArrayBase, ArrayD, Data, Dimension, IxDyn};

use super::backward::Rule;
use super::mask::ids;
use super::{Id, OpKind, TapeError, Var};
use crate::batch::Array;

/// Records what is computed from its inputs, to be walked backwards. One tape per call of a loss.
#[derive(Default)]
pub struct Tape {
    state: RefCell<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) nodes: Vec<Node>,
    /// `offsets[s]..offsets[s + 1]` are the tokens of sequence `s`.
    offsets: Option<Vec<usize>>,
    pub(super) error: Option<TapeError>,
}

pub(super) struct Node {
    pub(super) kind: OpKind,
    /// Always in standard (row-major, contiguous) layout, with at most two axes.
    pub(super) value: ArrayD<f64>,
    pub(super) rule: Rule,
    /// Whether any input lies behind it; nothing is computed backwards where none does.
    pub(super) differentiable: bool,
}

/// The index of variables made after the tape's first error.
pub(super) const POISONED: usize = usize::MAX;

impl Tape {
    /// An empty tape without sequences: tokens, or anything else, in plain vectors.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty tape for packed sequences: tokens `offsets[s]..offsets[s + 1]` are sequence `s`. S + 1 entries, the first 0,
    /// the last N, none smaller than the one before; anything else is the tape's first error.
    pub fn with_offsets<T: Id>(offsets: &[T]) -> Self {
        let (offsets, error) = match read_offsets(offsets) {
            Ok(offsets) => (Some(offsets), None),
            Err(error) => (None, Some(error)),
        };
        Self { state: RefCell::new(State { nodes: Vec::new(), offsets, error }) }
    }

    /// A value nothing is differentiated by: reference log-probabilities, advantages, rewards.
    pub fn constant(&self, value: impl IntoValue) -> Var<'_> {
        let value = value.into_value();
        self.record(OpKind::Constant, &[], |_| {
            Ok((at_most_matrix(OpKind::Constant, value?)?, Rule::Stop { operands: Vec::new() }))
        })
    }

    /// A value the loss is differentiated by; [`Gradients`](super::Gradients) know it by `name`, which must be new to the tape.
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

    pub(super) fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    /// Adds the node that `build` makes, or keeps its error if it is the tape's first.
    pub(super) fn record<'t>(
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
    pub(super) fn value(&self, var: Var<'_>) -> &ArrayD<f64> {
        &self.nodes[var.index].value
    }

    /// The same, flat in row-major order.
    pub(super) fn flat(&self, var: Var<'_>) -> &[f64] {
        flat(self.value(var))
    }

    /// The sequences' offsets.
    pub(super) fn offsets(&self, op: OpKind) -> Result<&[usize], TapeError> {
        self.offsets.as_deref().ok_or(TapeError::NoOffsets { op })
    }
}

/// A node's numbers in row-major order.
pub(super) fn flat(value: &ArrayD<f64>) -> &[f64] {
    value.as_slice().expect("`record` stores standard layout only")
}

/// An array of `shape` from numbers that an operation computed for exactly that shape.
pub(super) fn array(shape: &[usize], flat: Vec<f64>) -> ArrayD<f64> {
    ArrayD::from_shape_vec(IxDyn(shape), flat).expect("an operation fills its own shape")
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
    /// One variable a line, in the order they were made.
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

impl Node {
    /// `#5 log_sigmoid(#4) [3] = [-0.69, -0.31, -1.2]`; of long vectors the beginning.
    pub(super) fn describe(&self, index: usize) -> String {
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

/// What a tape takes as a value: an `f64`, a slice, an array, a `Vec`, an ndarray of at most two axes, or an array of a batch
/// (a vector, or a matrix if it has several values per row).
pub trait IntoValue {
    /// The value as an ndarray.
    ///
    /// # Errors
    /// A batch array whose numbers do not fill its rows.
    fn into_value(self) -> Result<ArrayD<f64>, TapeError>;
}

impl IntoValue for f64 {
    fn into_value(self) -> Result<ArrayD<f64>, TapeError> {
        Ok(Array0::from_elem((), self).into_dyn())
    }
}

impl IntoValue for &[f64] {
    fn into_value(self) -> Result<ArrayD<f64>, TapeError> {
        Ok(Array1::from(self.to_vec()).into_dyn())
    }
}

impl IntoValue for Vec<f64> {
    fn into_value(self) -> Result<ArrayD<f64>, TapeError> {
        Ok(Array1::from(self).into_dyn())
    }
}

impl IntoValue for &Vec<f64> {
    fn into_value(self) -> Result<ArrayD<f64>, TapeError> {
        self.as_slice().into_value()
    }
}

impl<const N: usize> IntoValue for [f64; N] {
    fn into_value(self) -> Result<ArrayD<f64>, TapeError> {
        self.as_slice().into_value()
    }
}

impl<const N: usize, const K: usize> IntoValue for [[f64; K]; N] {
    fn into_value(self) -> Result<ArrayD<f64>, TapeError> {
        Ok(array(&[N, K], self.into_iter().flatten().collect()))
    }
}

impl<S: Data<Elem = f64>, D: Dimension> IntoValue for ArrayBase<S, D> {
    fn into_value(self) -> Result<ArrayD<f64>, TapeError> {
        Ok(self.into_owned().into_dyn())
    }
}

impl<S: Data<Elem = f64>, D: Dimension> IntoValue for &ArrayBase<S, D> {
    fn into_value(self) -> Result<ArrayD<f64>, TapeError> {
        Ok(self.to_owned().into_dyn())
    }
}

impl IntoValue for &Array<'_> {
    fn into_value(self) -> Result<ArrayD<f64>, TapeError> {
        let (length, columns) = (self.data.len(), self.cols);
        match columns {
            1 => self.data.as_ref().into_value(),
            _ if self.rows() * columns == length => Ok(array(&[self.rows(), columns], self.data.to_vec())),
            _ => Err(TapeError::Ragged { name: self.name.to_string(), length, columns }),
        }
    }
}
