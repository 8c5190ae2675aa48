//! Reading a variable: its numbers, its shape, its line for `dbg!`.

use std::fmt;

use ndarray::ArrayD;

use super::tape::{State, Var};
use crate::tape::error::TapeError;

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

    /// The number in a scalar.
    ///
    /// # Errors
    /// The first mistake made on the tape, or that this is not a scalar.
    pub fn scalar(self) -> Result<f64, TapeError> {
        let value = self.value()?;
        if value.ndim() != 0 {
            return Err(TapeError::NotScalar { wanted: "a single number", found: value.shape().to_vec() });
        }
        Ok(value.sum())
    }

    /// The shape: `[]` for a scalar, `[N]` for a vector, `[N, K]` for a matrix.
    ///
    /// # Errors
    /// The first mistake made on the tape.
    pub fn shape(self) -> Result<Vec<usize>, TapeError> {
        self.read(|state| state.value(self).shape().to_vec())
    }

    pub(in crate::tape) fn read<T>(self, look: impl FnOnce(&State) -> T) -> Result<T, TapeError> {
        self.tape.finish()?;
        Ok(look(&self.tape.state()))
    }
}

impl fmt::Debug for Var<'_> {
    /// Operation, operands, shape and values, for `dbg!`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.tape.state();
        match (state.nodes.get(self.index), &state.error) {
            (Some(node), _) => f.write_str(&node.describe(self.index)),
            (None, Some(error)) => write!(f, "no value: {error}"),
            (None, None) => f.write_str("no value"),
        }
    }
}
