//! What a product is made of: its factors, and what it starts from.

use super::{
    element::{Element, is_f32},
    operand::Mat,
};

/// One factor of a product: a matrix, or its transpose.
#[derive(Clone, Copy)]
pub struct Factor<E = f32> {
    /// The matrix.
    pub mat: Mat<E>,
    /// Whether the factor is its transpose.
    pub transposed: bool,
}

/// The matrix, not transposed.
pub fn plain<E>(mat: Mat<E>) -> Factor<E> {
    Factor { mat, transposed: false }
}

/// Its transpose.
pub fn transposed<E>(mat: Mat<E>) -> Factor<E> {
    Factor { mat, transposed: true }
}

impl<E: Element> Factor<E> {
    /// Rows of the factor.
    pub fn rows(&self) -> usize {
        if self.transposed { self.mat.cols } else { self.mat.rows }
    }

    /// Columns of the factor.
    pub fn cols(&self) -> usize {
        if self.transposed { self.mat.rows } else { self.mat.cols }
    }

    /// (row stride, column stride).
    pub fn strides(&self) -> (isize, isize) {
        let stride = self.mat.stride as isize;
        if self.transposed { (1, stride) } else { (stride, 1) }
    }

    /// Some rows of the factor.
    pub fn row_block(&self, from: usize, len: usize) -> Factor<E> {
        let mat = if self.transposed {
            self.mat.block(0, self.mat.rows, from, len)
        } else {
            self.mat.block(from, len, 0, self.mat.cols)
        };
        Factor { mat, ..*self }
    }

    /// Some columns of the factor.
    pub fn col_block(&self, from: usize, len: usize) -> Factor<E> {
        let mat = if self.transposed {
            self.mat.block(from, len, 0, self.mat.cols)
        } else {
            self.mat.block(0, self.mat.rows, from, len)
        };
        Factor { mat, ..*self }
    }

    /// The factor of f32 that it is, for code that has compared the types.
    pub fn as_f32(&self) -> Factor {
        assert!(is_f32::<E>(), "a factor of another type");
        Factor { mat: self.mat.cast(), transposed: self.transposed }
    }
}

/// The initial value of the result.
#[derive(Clone, Copy)]
pub enum Start<E = f32> {
    /// Zero.
    Zero,
    /// Its present content.
    Accumulate,
    /// The same row in all rows.
    Row(Mat<E>),
}

impl<E: Element> Start<E> {
    /// That of some columns.
    pub fn columns(self, from: usize, len: usize) -> Self {
        match self {
            Start::Row(row) => Start::Row(row.block(0, 1, from, len)),
            other => other,
        }
    }

    /// The initial value of a product in f32, for code that has compared the types of the factors. Only a row has a type of its own.
    pub fn as_f32(self) -> Start {
        match self {
            Start::Zero => Start::Zero,
            Start::Accumulate => Start::Accumulate,
            Start::Row(row) => {
                assert!(is_f32::<E>(), "a row of another type");
                Start::Row(row.cast())
            }
        }
    }
}
