//! Masks, and the integer arrays (ids, sides, offsets) that control an operation and have no gradient.

use std::fmt;

use ndarray::{ArrayBase, Data, Dimension};

use super::error::TapeError;
use super::kind::OpKind;

/// A number in a mask, an id array or an offset array: every primitive number, `bool` included. The contract's arrays are f64, a
/// test's are `vec![0, 1]`; both work.
pub trait Id: Copy + fmt::Debug {
    /// Its integer; `None` for 0.5, NaN, or a number outside the range of i64.
    fn to_id(self) -> Option<i64>;
}

macro_rules! integer_ids {
    ($($integer:ty)*) => {$(
        impl Id for $integer {
            fn to_id(self) -> Option<i64> {
                i64::try_from(self).ok()
            }
        }
    )*};
}
integer_ids!(bool u8 u16 u32 u64 usize i8 i16 i32 i64 isize);

impl Id for f64 {
    fn to_id(self) -> Option<i64> {
        // Above 2^53 neighbouring integers share an f64, so that such an id is ambiguous.
        (self.fract() == 0.0 && self.abs() <= 9_007_199_254_740_992.0).then_some(self as i64)
    }
}

impl Id for f32 {
    fn to_id(self) -> Option<i64> {
        f64::from(self).to_id()
    }
}

/// Reads `array` as integers.
pub(super) fn ids<T: Id>(op: OpKind, array: &'static str, values: &[T]) -> Result<Vec<i64>, TapeError> {
    let read = |(position, value): (usize, &T)| {
        value.to_id().ok_or_else(|| TapeError::Id { op, array, position, found: format!("{value:?}") })
    };
    values.iter().enumerate().map(read).collect()
}

/// Which entries take part. Operations *select* by it and never multiply, so that a NaN or an infinity behind a zero reaches
/// neither value nor gradient.
///
/// Created from `&[bool]`, or from zeros and ones of any number type: `x.masked_sum(&mask)` takes a `&Vec<f64>`, a `&[u8]`, an
/// ndarray, or a `&Mask` from a comparison such as [`Var::gt`](super::Var::gt). Its length is that of the variable or, for a
/// matrix, that of its first axis: then it applies to whole rows. Any value other than 0 and 1 is an error of the operation that
/// uses the mask: a weight is not a mask.
#[derive(Clone, PartialEq)]
pub struct Mask {
    bits: Vec<bool>,
    fault: Option<String>,
}

impl Mask {
    fn read<T: Id>(values: impl Iterator<Item = T>) -> Self {
        let mut fault = None;
        let read = |(position, value): (usize, T)| match value.to_id() {
            Some(bit @ (0 | 1)) => bit == 1,
            _ => {
                fault.get_or_insert_with(|| format!("entry {position} is {value:?}"));
                false
            }
        };
        let bits = values.enumerate().map(read).collect();
        Self { bits, fault }
    }

    pub(super) fn broken(fault: String) -> Self {
        Self { bits: Vec::new(), fault: Some(fault) }
    }

    /// One bit per entry.
    pub fn bits(&self) -> &[bool] {
        &self.bits
    }

    /// How many entries take part.
    pub fn count(&self) -> usize {
        self.bits.iter().filter(|bit| **bit).count()
    }

    /// Ones and zeros, to be added up for a metric.
    pub fn to_f64(&self) -> Vec<f64> {
        self.bits.iter().map(|bit| f64::from(u8::from(*bit))).collect()
    }

    /// Entries in both masks.
    #[must_use]
    pub fn and(&self, other: impl Into<Mask>) -> Mask {
        self.combine(other.into(), |a, b| a && b)
    }

    /// Entries in either mask.
    #[must_use]
    pub fn or(&self, other: impl Into<Mask>) -> Mask {
        self.combine(other.into(), |a, b| a || b)
    }

    /// Entries not in the mask.
    #[must_use]
    pub fn negate(&self) -> Mask {
        Self { bits: self.bits.iter().map(|bit| !bit).collect(), fault: self.fault.clone() }
    }

    fn combine(&self, other: Mask, rule: impl Fn(bool, bool) -> bool) -> Mask {
        let lengths = (self.bits.len(), other.bits.len());
        let unequal = || (lengths.0 != lengths.1).then(|| format!("masks of lengths {} and {}", lengths.0, lengths.1));
        let fault = self.fault.clone().or(other.fault).or_else(unequal);
        Self { bits: self.bits.iter().zip(&other.bits).map(|(a, b)| rule(*a, *b)).collect(), fault }
    }

    /// One bit for each of the variable's elements; a mask over rows is repeated along the last axis.
    pub(super) fn elements(self, op: OpKind, shape: &[usize]) -> Result<Vec<bool>, TapeError> {
        if let Some(fault) = self.fault {
            return Err(TapeError::Mask { op, fault });
        }
        let length = self.bits.len();
        match *shape {
            _ if length == shape.iter().product::<usize>() => Ok(self.bits),
            [rows, width] if length == rows => {
                Ok(self.bits.iter().flat_map(|bit| std::iter::repeat_n(*bit, width)).collect())
            }
            _ => Err(TapeError::Length { op, array: "mask", length, shape: shape.to_vec() }),
        }
    }

    /// One bit for each of the variable's rows (entries, for a vector).
    pub(super) fn rows(self, op: OpKind, shape: &[usize]) -> Result<Vec<bool>, TapeError> {
        self.elements(op, shape.get(..1).unwrap_or_default()).map_err(|error| match error {
            TapeError::Length { op, array, length, .. } => {
                TapeError::Length { op, array, length, shape: shape.to_vec() }
            }
            other => other,
        })
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Some(fault) => write!(f, "Mask(invalid: {fault})"),
            None => write!(f, "Mask({} of {})", self.count(), self.bits.len()),
        }
    }
}

impl From<&Mask> for Mask {
    fn from(mask: &Mask) -> Self {
        mask.clone()
    }
}

impl<T: Id> From<&[T]> for Mask {
    fn from(values: &[T]) -> Self {
        Self::read(values.iter().copied())
    }
}

impl<T: Id, const N: usize> From<&[T; N]> for Mask {
    fn from(values: &[T; N]) -> Self {
        Self::read(values.iter().copied())
    }
}

impl<T: Id> From<&Vec<T>> for Mask {
    fn from(values: &Vec<T>) -> Self {
        Self::read(values.iter().copied())
    }
}

impl<T: Id, S: Data<Elem = T>, D: Dimension> From<&ArrayBase<S, D>> for Mask {
    fn from(values: &ArrayBase<S, D>) -> Self {
        Self::read(values.iter().copied())
    }
}
