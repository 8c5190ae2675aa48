//! A case's operands in the form that every backend gets: rounded to their dtypes.

use super::bounded::{Bounded, Sum, attribute, exact};
use crate::backend::{
    case::Case,
    stage::Outcome,
    tensor::{Tensor, decode, encode},
};
use plugin_api::{Error, Result, abi::DType};
use std::ops::Range;

/// Outputs by name.
pub type Outputs = Vec<(&'static str, Matrix)>;

/// Operations by name, each with its evaluation.
pub type Formulas = &'static [(&'static str, fn(&Operands<'_>) -> Result<Outputs>)];

/// Half of the dtype's epsilon: the largest relative error of rounding to nearest.
pub fn roundoff(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON / 2.0,
        DType::F32 => f64::from(f32::EPSILON) / 2.0,
        DType::BF16 => 1.0 / 256.0,
        _ => 0.0,
    }
}

/// A matrix of bounded numbers.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Row by row.
    pub data: Vec<Bounded>,
}

impl Matrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Matrix {
        Matrix { rows, cols, data: vec![exact(0.0); rows * cols] }
    }

    /// A matrix of one row with these values.
    pub fn of_row(data: Vec<Bounded>) -> Matrix {
        Matrix { rows: 1, cols: data.len(), data }
    }

    /// Row `r`.
    pub fn row(&self, r: usize) -> &[Bounded] {
        &self.data[r * self.cols..(r + 1) * self.cols]
    }

    /// Row `r`, to write to.
    pub fn row_mut(&mut self, r: usize) -> &mut [Bounded] {
        &mut self.data[r * self.cols..(r + 1) * self.cols]
    }

    /// `f(element)` everywhere.
    pub fn map(&self, f: impl Fn(Bounded) -> Bounded) -> Matrix {
        Matrix { data: self.data.iter().map(|&x| f(x)).collect(), ..*self }
    }

    /// `f(element, other's element)` everywhere.
    pub fn zip(&self, other: &Matrix, f: impl Fn(Bounded, Bounded) -> Bounded) -> Matrix {
        Matrix { data: self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect(), ..*self }
    }
}

/// A matrix of sums that may be added up in any order.
pub struct Sums {
    rows: usize,
    cols: usize,
    data: Vec<Sum>,
}

impl Sums {
    /// Sums of no term.
    pub fn new(rows: usize, cols: usize) -> Sums {
        Sums { rows, cols, data: vec![Sum::default(); rows * cols] }
    }

    /// Sums that start with the elements of an operand that accumulates.
    pub fn from(start: &Matrix) -> Sums {
        let mut sums = Sums::new(start.rows, start.cols);
        sums.data.iter_mut().zip(&start.data).for_each(|(sum, &x)| sum.add(x));
        sums
    }

    /// Adds `factor x` to row `r`, from column `first` on.
    pub fn add(&mut self, r: usize, first: usize, factor: Bounded, x: &[Bounded]) {
        let start = r * self.cols + first;
        self.data[start..start + x.len()].iter_mut().zip(x).for_each(|(sum, &x)| sum.add(factor * x));
    }

    /// The sums added to an operand that accumulates; a kernel may store them in the compute dtype first.
    pub fn added_to(self, start: &Matrix) -> Matrix {
        self.total().zip(start, |sum, start| sum.stored() + start.rounded(1.0))
    }

    /// The sums.
    pub fn total(self) -> Matrix {
        Matrix { rows: self.rows, cols: self.cols, data: self.data.into_iter().map(Sum::total).collect() }
    }
}

/// A case's operands and attributes.
pub struct Operands<'a> {
    case: &'a Case,
    compute: DType,
    expected: &'a Outcome,
}

impl<'a> Operands<'a> {
    /// The number of roundings in f64, expressed in roundings in the accumulator.
    pub fn of_f64(&self, roundings: f64) -> f64 {
        roundings * roundoff(DType::F64) / roundoff(self.compute.accumulator())
    }

    /// The operands of `case`, computed in `compute`, whose results on the reference are `expected`.
    pub fn new(case: &'a Case, compute: DType, expected: &'a Outcome) -> Self {
        Operands { case, compute, expected }
    }

    /// The reference's values of an output; empty if the case lacks it.
    pub fn of_reference(&self, output: &str) -> &'a [f64] {
        self.expected.output(output).map_or(&[], |tensor| &tensor.data)
    }

    fn tensor(&self, name: &str) -> Option<(&'a Tensor, DType)> {
        let spec = self.case.specs().find(|spec| spec.name == name)?;
        Some((self.case.operand(name)?, self.case.dtype_of(spec, self.compute)))
    }

    fn missing(&self, what: &str, name: &str) -> Error {
        Error::internal(format!("{}: the case {} has no {what} `{name}`", self.case.spec.name, self.case.name))
    }

    /// An operand's elements as stored.
    ///
    /// # Errors
    /// If the case lacks it.
    pub fn matrix(&self, name: &str) -> Result<Matrix> {
        self.optional(name).ok_or_else(|| self.missing("operand", name))
    }

    /// An optional operand's elements as stored.
    pub fn optional(&self, name: &str) -> Option<Matrix> {
        let (tensor, dtype) = self.tensor(name)?;
        let stored = |&value: &f64| exact(as_stored(dtype, value));
        Some(Matrix { rows: tensor.rows, cols: tensor.cols, data: tensor.data.iter().map(stored).collect() })
    }

    /// The number of columns of an operand.
    ///
    /// # Errors
    /// If the case lacks it.
    pub fn columns(&self, name: &str) -> Result<usize> {
        Ok(self.case.operand(name).ok_or_else(|| self.missing("operand", name))?.cols)
    }

    /// Element of an optional row, 0 if the row is absent.
    pub fn optional_row(&self, name: &str) -> impl Fn(usize) -> Bounded {
        let row = self.optional(name);
        move |n| row.as_ref().map_or(exact(0.0), |row| row.data[n])
    }

    /// The integers of an operand.
    ///
    /// # Errors
    /// If the case lacks it.
    pub fn integers(&self, name: &str) -> Result<Vec<usize>> {
        let (tensor, _) = self.tensor(name).ok_or_else(|| self.missing("operand", name))?;
        Ok(tensor.data.iter().map(|&x| x as usize).collect())
    }

    /// Ranges between neighbouring integers of an operand.
    ///
    /// # Errors
    /// If the case lacks it.
    pub fn ranges(&self, name: &str) -> Result<Vec<Range<usize>>> {
        Ok(self.integers(name)?.windows(2).map(|pair| pair[0]..pair[1]).collect())
    }

    fn bits(&self, name: &str) -> Result<u64> {
        self.case.attr(name).ok_or_else(|| self.missing("attribute", name))
    }

    /// An attribute's integer, or the number of a named value.
    ///
    /// # Errors
    /// If the case lacks it.
    pub fn integer(&self, name: &str) -> Result<i64> {
        Ok(self.bits(name)? as i64)
    }

    /// The same as a size.
    ///
    /// # Errors
    /// If the case lacks it.
    pub fn size(&self, name: &str) -> Result<usize> {
        Ok(self.integer(name)? as usize)
    }

    /// An attribute's number.
    ///
    /// # Errors
    /// If the case lacks it.
    pub fn number(&self, name: &str) -> Result<f64> {
        Ok(f64::from_bits(self.bits(name)?))
    }

    /// An attribute's number, which a kernel may round.
    ///
    /// # Errors
    /// If the case lacks it.
    pub fn factor(&self, name: &str) -> Result<Bounded> {
        Ok(attribute(self.number(name)?))
    }
}

/// `value` rounded to `dtype`.
pub fn as_stored(dtype: DType, value: f64) -> f64 {
    let mut bytes = Vec::with_capacity(8);
    encode(dtype, value, &mut bytes);
    decode(dtype, &bytes)
}
