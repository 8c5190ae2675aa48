//! Operands in f64: reading a view as a matrix or a list of numbers, and writing a result.

use crate::session::Reference;
use plugin_api::{Code, Error, Result, backend::View};

/// A dense matrix, row after row.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// `rows * cols` values.
    pub data: Vec<f64>,
}

impl Matrix {
    /// All zero.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Matrix { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// Row `r`.
    pub fn row(&self, r: usize) -> &[f64] {
        &self.data[r * self.cols..(r + 1) * self.cols]
    }

    /// Row `r`, to write to.
    pub fn row_mut(&mut self, r: usize) -> &mut [f64] {
        &mut self.data[r * self.cols..(r + 1) * self.cols]
    }
}

/// Inner product.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `y += alpha x`.
pub fn axpy(y: &mut [f64], alpha: f64, x: &[f64]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += alpha * x);
}

impl Reference {
    /// The view's elements in f64.
    pub(crate) fn read(&self, view: &View) -> Result<Matrix> {
        let buffer = self.pool.check(view)?;
        let (rows, cols) = (view.rows as usize, view.cols as usize);
        let mut data = Vec::with_capacity(rows * cols);
        for r in 0..rows {
            buffer.read((view.offset + r as u64 * view.row_stride) as usize, cols, &mut data);
        }
        Ok(Matrix { rows, cols, data })
    }

    /// An optional operand.
    pub(crate) fn read_opt(&self, view: &Option<View>) -> Result<Option<Matrix>> {
        view.as_ref().map(|view| self.read(view)).transpose()
    }

    /// A row of integers.
    pub(crate) fn ints(&self, view: &View) -> Result<Vec<i64>> {
        Ok(self.read(view)?.data.into_iter().map(|x| x as i64).collect())
    }

    /// A row of indices into a table of `size` rows.
    pub(crate) fn indices(&self, op: &str, name: &str, view: &View, size: usize) -> Result<Vec<usize>> {
        let values = self.ints(view)?;
        for (at, &value) in values.iter().enumerate() {
            if value < 0 || value >= size as i64 {
                return Err(Error::new(
                    Code::INDEX,
                    format!("{op}: `{name}`[{at}] is {value}, outside a table of {size}"),
                ));
            }
        }
        Ok(values.into_iter().map(|value| value as usize).collect())
    }

    /// Ranges from ascending offsets that run from 0 to `end`.
    pub(crate) fn ranges(&self, op: &str, name: &str, view: &View, end: usize) -> Result<Vec<std::ops::Range<usize>>> {
        let offsets = self.ints(view)?;
        let ascending = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        if offsets.first() != Some(&0) || offsets.last() != Some(&(end as i64)) || !ascending {
            return Err(Error::new(
                Code::INDEX,
                format!("{op}: `{name}` must ascend from 0 to {end}, found {offsets:?}"),
            ));
        }
        Ok(offsets.windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect())
    }

    /// Writes a result, rounded to the view's dtype.
    pub(crate) fn write(&mut self, view: &View, matrix: &Matrix) -> Result<()> {
        self.pool.check(view)?;
        let (buffer, _, _) = self.pool.buffer_mut(view.buffer)?;
        for r in 0..matrix.rows {
            buffer.write((view.offset + r as u64 * view.row_stride) as usize, matrix.row(r));
        }
        Ok(())
    }

    /// Writes an optional result.
    pub(crate) fn write_opt(&mut self, view: &Option<View>, matrix: &Matrix) -> Result<()> {
        view.as_ref().map_or(Ok(()), |view| self.write(view, matrix))
    }

    /// Adds to an operand that accumulates.
    pub(crate) fn add(&mut self, view: &View, matrix: &Matrix) -> Result<()> {
        let mut sum = self.read(view)?;
        axpy(&mut sum.data, 1.0, &matrix.data);
        self.write(view, &sum)
    }

    /// Adds to an optional operand that accumulates.
    pub(crate) fn add_opt(&mut self, view: &Option<View>, matrix: &Matrix) -> Result<()> {
        view.as_ref().map_or(Ok(()), |view| self.add(view, matrix))
    }
}
