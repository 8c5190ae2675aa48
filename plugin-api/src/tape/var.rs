//! The author's handle on a value: a tape and an index. What can be done with it is in the operations' files; here is
//! how to look at it.

use std::fmt;

use ndarray::ArrayD;

use super::backward::Rule;
use super::graph::State;
use super::operators::elementwise;
use super::{Mask, OpKind, Operand, Tape, TapeError, detached};

/// A value on a tape. Copied freely: it holds no numbers itself.
#[derive(Clone, Copy)]
pub struct Var<'t> {
    pub(super) tape: &'t Tape,
    pub(super) index: usize,
}

impl<'t> Var<'t> {
    /// The numbers.
    ///
    /// # Errors
    /// The first mistake made on the tape.
    pub fn value(self) -> Result<ArrayD<f64>, TapeError> {
        self.read(|state| state.value(self).clone())
    }

    /// The numbers in row-major order.
    ///
    /// # Errors
    /// The first mistake made on the tape.
    pub fn to_vec(self) -> Result<Vec<f64>, TapeError> {
        self.read(|state| state.flat(self).to_vec())
    }

    /// The number, of a scalar.
    ///
    /// # Errors
    /// The first mistake made on the tape, or that this is no scalar.
    pub fn scalar(self) -> Result<f64, TapeError> {
        let value = self.value()?;
        if value.ndim() != 0 {
            return Err(TapeError::NotScalar { wanted: "a single number", found: value.shape().to_vec() });
        }
        Ok(value.sum())
    }

    /// The shape: `[]` of a scalar, `[N]` of a vector, `[N, K]` of a matrix.
    ///
    /// # Errors
    /// The first mistake made on the tape.
    pub fn shape(self) -> Result<Vec<usize>, TapeError> {
        self.read(|state| state.value(self).shape().to_vec())
    }

    /// The same value, but nothing flows back through it.
    #[must_use]
    pub fn detach(self) -> Var<'t> {
        self.detach_as("")
    }

    /// The same value, but no gradient flows back through it. `name` is one of
    /// [`ObjectiveManifest::stop_gradients`](crate::manifest::ObjectiveManifest::stop_gradients); a law checks that it is detached.
    #[must_use]
    pub fn detach_as(self, name: &str) -> Var<'t> {
        self.tape.record(OpKind::Detach, &[self], |state: &State| {
            let mut value = state.value(self).clone();
            if let Some(values) = value.as_slice_mut() {
                detached::pass(name, values);
            }
            Ok((value, Rule::Stop { operands: vec![self.index] }))
        })
    }

    /// Where this is greater than `other`; a NaN is not. Scalars broadcast. For masks and for metrics such as a clip fraction.
    #[must_use]
    pub fn gt(self, other: impl Into<Operand<'t>>) -> Mask {
        self.compare(other.into(), |a, b| a > b)
    }

    /// Where this is greater than or equal to `other`.
    #[must_use]
    pub fn ge(self, other: impl Into<Operand<'t>>) -> Mask {
        self.compare(other.into(), |a, b| a >= b)
    }

    /// Where this is less than `other`.
    #[must_use]
    pub fn lt(self, other: impl Into<Operand<'t>>) -> Mask {
        self.compare(other.into(), |a, b| a < b)
    }

    /// Where this is less than or equal to `other`.
    #[must_use]
    pub fn le(self, other: impl Into<Operand<'t>>) -> Mask {
        self.compare(other.into(), |a, b| a <= b)
    }

    fn compare(self, other: Operand<'t>, holds: impl Fn(f64, f64) -> bool) -> Mask {
        let other = other.on(self.tape);
        let indicator = self.tape.record(OpKind::Compare, &[self, other], |state| {
            let value = elementwise(OpKind::Compare, state, self, other, |a, b| f64::from(u8::from(holds(a, b))))?;
            Ok((value, Rule::Stop { operands: vec![self.index, other.index] }))
        });
        match indicator.read(|state| Mask::from(state.flat(indicator))) {
            Ok(mask) => mask,
            // The tape keeps the error; a broken mask cannot be used anywhere else either.
            Err(error) => Mask::broken(error.to_string()),
        }
    }

    fn read<T>(self, look: impl FnOnce(&State) -> T) -> Result<T, TapeError> {
        self.tape.finish()?;
        Ok(look(&self.tape.state()))
    }
}

impl fmt::Debug for Var<'_> {
    /// Operation, operands, shape and values: made for `dbg!`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.tape.state();
        match (state.nodes.get(self.index), &state.error) {
            (Some(node), _) => f.write_str(&node.describe(self.index)),
            (None, Some(error)) => write!(f, "no value: {error}"),
            (None, None) => f.write_str("no value"),
        }
    }
}
