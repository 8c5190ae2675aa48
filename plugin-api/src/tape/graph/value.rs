//! The types that an author may pass to a tape as a value.

use ndarray::{Array0, Array1, ArrayBase, ArrayD, Data, Dimension};

use super::node::array;
use crate::batch::Array;
use crate::tape::error::TapeError;

/// A value that a tape accepts: an `f64`, a slice, an array, a `Vec`, an ndarray of at most two axes, or an array of a batch (a
/// vector, or a matrix if it has several values per row).
pub trait IntoValue {
    /// The value as an ndarray.
    ///
    /// # Errors
    /// For a batch array whose length is not a multiple of its columns.
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
