//! Context of the generic path: a session's buffers as candle's tensors, and its errors.

use crate::{
    check,
    storage::{Storage, candle_error},
};
use candle_core::{DType, Tensor};
use plugin_api::{
    Error, Result,
    backend::{Pool, View, ops},
};

/// A session's buffers during one operation.
pub struct Generic<'a> {
    /// Buffers.
    pub pool: &'a mut Pool<Storage>,
}

/// A failure of candle or of a check, before the operation's name is added.
pub enum Fault {
    /// candle's.
    Candle(candle_core::Error),
    /// An error with its final text.
    Worded(Error),
}

impl From<candle_core::Error> for Fault {
    fn from(e: candle_core::Error) -> Self {
        Fault::Candle(e)
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::Worded(e)
    }
}

impl ops::Fault for Fault {
    fn named(self, operation: &str) -> Error {
        match self {
            Fault::Candle(e) => candle_error(operation, e),
            Fault::Worded(e) => e,
        }
    }
}

/// A step's result.
pub type Outcome<T = ()> = std::result::Result<T, Fault>;

impl Generic<'_> {
    /// A float operand as a contiguous `[rows, cols]` tensor of f32, in which everything is computed. If the operand is f32, it may share
    /// the buffer's memory. Results of candle's operations never do, so code that writes the tensor itself elsewhere copies it first.
    pub(super) fn input(&self, view: &View) -> Outcome<Tensor> {
        check::float(view)?;
        Ok(self.floats(view)?.to_dtype(DType::F32)?)
    }

    /// As [`Generic::input`], in its own type.
    pub(super) fn floats(&self, view: &View) -> Outcome<Tensor> {
        let flat = self.pool.check(view)?.tensor();
        let [offset, rows, cols, stride] = [view.offset, view.rows, view.cols, view.row_stride].map(|v| v as usize);
        if view.is_empty() {
            return Ok(Tensor::zeros((rows, cols), flat.dtype(), flat.device())?);
        }
        if view.is_dense() {
            return Ok(flat.narrow(0, offset, rows * cols)?.reshape((rows, cols))?);
        }
        // The buffer may end with the last row, before a whole stride.
        let before = flat.narrow(0, offset, (rows - 1) * stride)?.reshape((rows - 1, stride))?.narrow(1, 0, cols)?;
        let last = flat.narrow(0, offset + (rows - 1) * stride, cols)?.reshape((1, cols))?;
        Ok(Tensor::cat(&[before, last], 0)?)
    }

    pub(super) fn input_opt(&self, view: &Option<View>) -> Outcome<Option<Tensor>> {
        view.as_ref().map(|view| self.input(view)).transpose()
    }

    /// Writes a tensor with the same number of elements, which shares no memory with the buffer; counts as a write.
    pub(super) fn output(&mut self, view: &View, value: &Tensor) -> Outcome {
        let flat = self.pool.check(view)?.tensor();
        if !view.is_empty() {
            let [offset, rows, cols, stride] = [view.offset, view.rows, view.cols, view.row_stride].map(|v| v as usize);
            let value = value.to_dtype(flat.dtype())?.contiguous()?;
            if view.is_dense() {
                flat.slice_set(&value.flatten_all()?, 0, offset)?;
            } else {
                let value = value.reshape((rows, cols))?;
                flat.narrow(0, offset, (rows - 1) * stride)?.reshape((rows - 1, stride))?.slice_set(
                    &value.narrow(0, 0, rows - 1)?,
                    1,
                    0,
                )?;
                let last = value.narrow(0, rows - 1, 1)?.flatten_all()?;
                flat.slice_set(&last, 0, offset + (rows - 1) * stride)?;
            }
        }
        self.pool.written(view.buffer)?;
        Ok(())
    }

    pub(super) fn output_opt(&mut self, view: &Option<View>, value: &Tensor) -> Outcome {
        view.as_ref().map_or(Ok(()), |view| self.output(view, value))
    }

    /// Adds to the view's content.
    pub(super) fn add(&mut self, view: &View, value: &Tensor) -> Outcome {
        let sum = (self.input(view)? + value)?;
        self.output(view, &sum)
    }

    /// Integers, which are always in the host's memory.
    pub(super) fn ints(&self, view: &View) -> Result<Vec<i32>> {
        let storage = self.pool.check(view)?;
        let mut bytes = vec![0; view.cols as usize * 4];
        storage.read(view.offset as usize, &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// The rows of a matrix of integers.
    pub(super) fn int_rows(&self, view: &View) -> Result<Vec<Vec<i32>>> {
        let row = |r: u64| self.ints(&View { offset: view.offset + r * view.row_stride, rows: 1, ..*view });
        // The whole view is checked even if it has no rows.
        self.pool.check(view)?;
        (0..view.rows).map(row).collect()
    }

    /// Writes the rows of a matrix of integers.
    pub(super) fn output_int_rows(&mut self, view: &View, rows: &[Vec<i32>]) -> Outcome {
        let storage = self.pool.check(view)?;
        for (r, row) in rows.iter().enumerate() {
            let bytes: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
            storage.write((view.offset + r as u64 * view.row_stride) as usize, &bytes)?;
        }
        self.pool.written(view.buffer)?;
        Ok(())
    }

    pub(super) fn output_ints(&mut self, view: &View, values: &[u32]) -> Outcome {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.pool.check(view)?.write(view.offset as usize, &bytes)?;
        self.pool.written(view.buffer)?;
        Ok(())
    }

    /// Checked indices as a tensor on the device.
    pub(super) fn index(&self, ids: &[i32]) -> Outcome<Tensor> {
        let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
        let len = ids.len();
        Ok(Tensor::from_vec(ids, len, self.pool.device())?)
    }
}
