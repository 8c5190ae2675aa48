//! A matrix product: its result, its factors, and what it starts from.

use super::{
    element::{Element, is_f32},
    operand::{Mat, MatMut},
};

/// `c = start + alpha a b`.
#[derive(Clone, Copy)]
pub struct Product<A = f32, B = f32, C = f32> {
    /// The result.
    pub c: MatMut<C>,
    /// The left factor.
    pub a: Factor<A>,
    /// The right factor.
    pub b: Factor<B>,
    /// Factor of the sums.
    pub alpha: f32,
    /// What they are added to.
    pub start: Start<B>,
}

impl<A: Element, B: Element, C: Element> Product<A, B, C> {
    /// Rows and columns of the result, and the number of terms of each sum.
    pub fn sizes(&self) -> (usize, usize, usize) {
        debug_assert!(self.a.rows() == self.c.rows && self.b.cols() == self.c.cols && self.a.cols() == self.b.rows());
        (self.c.rows, self.c.cols, self.a.cols())
    }

    /// The product whose result is the tile of `rows` x `cols` elements at (`i`, `j`).
    pub fn tile(&self, (i, rows): (usize, usize), (j, cols): (usize, usize)) -> Self {
        Product {
            c: self.c.block(i, rows, j, cols),
            a: self.a.row_block(i, rows),
            b: self.b.col_block(j, cols),
            alpha: self.alpha,
            start: self.start.columns(j, cols),
        }
    }

    /// The product, if all its numbers are f32.
    #[inline(always)]
    pub fn as_f32(&self) -> Option<Product> {
        Some(Product {
            c: self.c.as_f32()?,
            a: self.a.as_f32()?,
            b: self.b.as_f32()?,
            alpha: self.alpha,
            start: self.start.as_f32()?,
        })
    }
}

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

    /// The factor, if its numbers are f32.
    #[inline(always)]
    pub fn as_f32(&self) -> Option<Factor> {
        is_f32::<E>().then(|| Factor { mat: self.mat.cast(), transposed: self.transposed })
    }
}

/// A factor as lines of `depth` terms: rows of the left factor, columns of the right one.
#[derive(Clone, Copy)]
pub struct Side<E> {
    /// The first term of line 0.
    pub ptr: *const E,
    /// Elements from line to line if a line's terms are adjacent, else from term to term.
    pub stride: usize,
    /// Whether the terms of a line are adjacent in memory; otherwise the lines are.
    pub along: bool,
    /// Lines.
    pub len: usize,
    /// Terms of a line.
    pub depth: usize,
}

// SAFETY: a plain address; each access through it is justified where it happens.
unsafe impl<E> Sync for Side<E> {}

impl<E: Element> Side<E> {
    /// The left factor.
    pub fn left(a: Factor<E>) -> Self {
        Side { ptr: a.mat.ptr(), stride: a.mat.stride, along: !a.transposed, len: a.rows(), depth: a.cols() }
    }

    /// The right factor.
    pub fn right(b: Factor<E>) -> Self {
        Side { ptr: b.mat.ptr(), stride: b.mat.stride, along: b.transposed, len: b.cols(), depth: b.rows() }
    }

    /// The same address as a factor of another type, for code that has compared the types.
    pub fn cast<T>(&self) -> Side<T> {
        Side { ptr: self.ptr.cast(), stride: self.stride, along: self.along, len: self.len, depth: self.depth }
    }
}

/// The initial value of the result.
#[derive(Clone, Copy)]
pub enum Start<E = f32> {
    /// Zero.
    Zero,
    /// Its present content.
    Accumulate,
    /// The same row in all rows: a bias.
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

    /// The initial value, if its numbers are f32.
    #[inline(always)]
    pub fn as_f32(self) -> Option<Start> {
        is_f32::<E>().then(|| match self {
            Start::Zero => Start::Zero,
            Start::Accumulate => Start::Accumulate,
            Start::Row(row) => Start::Row(row.cast()),
        })
    }
}
