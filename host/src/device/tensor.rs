//! Owned device memory: freed with its last owner, passed to operations as views.

use std::{fmt, ops::Range, rc::Rc};

use plugin_api::abi::{DType, Handle, View};

use super::session::Device;
use crate::error::{Error, Result};

/// A device buffer; dropping it frees the handle.
pub struct Buffer {
    device: Device,
    handle: Handle,
    dtype: DType,
    elements: u64,
}

impl Buffer {
    pub(super) fn new(device: Device, handle: Handle, dtype: DType, elements: u64) -> Self {
        Buffer { device, handle, dtype, elements }
    }

    /// The device that holds it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.elements
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// The whole buffer as the vector `[1, len]`.
    pub fn view(&self) -> View {
        self.matrix(0, 1, self.elements)
    }

    /// The dense `[rows, cols]` matrix that begins at element `offset`. The backend refuses one that exceeds the buffer.
    pub fn matrix(&self, offset: u64, rows: u64, cols: u64) -> View {
        View { offset, ..View::dense(self.handle, self.dtype, rows, cols) }
    }

    pub(super) fn upload_bytes(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.device.0.session.borrow_mut().upload(self.handle, offset, bytes)?)
    }

    pub(super) fn download_bytes(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        Ok(self.device.0.session.borrow_mut().download(self.handle, offset, bytes)?)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A failure here cannot be handled, and the session is about to end anyway. The session is already borrowed only if a
        // call is unwinding.
        if let Ok(mut session) = self.device.0.session.try_borrow_mut() {
            let _ = session.free(self.handle);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}[{}]@{:?}", self.dtype, self.elements, self.handle)
    }
}

/// A dense matrix that shares ownership of its buffer with its clones.
#[derive(Clone, Debug)]
pub struct Tensor {
    buffer: Rc<Buffer>,
    rows: u64,
    cols: u64,
}

impl Tensor {
    pub(super) fn new(buffer: Buffer, rows: u64, cols: u64) -> Self {
        Tensor { buffer: Rc::new(buffer), rows, cols }
    }

    /// Its memory.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Number of rows.
    pub fn row_count(&self) -> u64 {
        self.rows
    }

    /// Number of columns.
    pub fn column_count(&self) -> u64 {
        self.cols
    }

    /// View of the whole matrix.
    pub fn view(&self) -> View {
        self.buffer.matrix(0, self.rows, self.cols)
    }

    /// View of some rows.
    pub fn rows(&self, range: Range<u64>) -> View {
        rows(self.view(), range)
    }

    /// View of some columns.
    pub fn cols(&self, range: Range<u64>) -> View {
        columns(self.view(), range)
    }

    /// Its values, row by row.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn to_vec(&self) -> Result<Vec<f64>> {
        self.buffer.download(0, self.rows * self.cols)
    }

    /// Its values as integers.
    ///
    /// # Errors
    /// The tensor contains floats; errors of the backend.
    pub fn to_ints(&self) -> Result<Vec<i32>> {
        if self.buffer.dtype() != DType::I32 {
            return Err(Error::run(format!("expected a tensor of integers, found {:?}", self.buffer)));
        }
        self.buffer.download_i32(0, self.rows * self.cols)
    }
}

impl Device {
    /// Allocates a buffer of `elements` with undefined content.
    ///
    /// # Errors
    /// The device is out of memory or lacks the dtype.
    pub fn buffer(&self, dtype: DType, elements: u64) -> Result<Buffer> {
        let handle = self.0.session.borrow_mut().alloc(dtype, elements)?;
        Ok(Buffer::new(self.clone(), handle, dtype, elements))
    }

    /// Allocates a `[rows, cols]` matrix of the compute dtype with undefined content.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn tensor(&self, rows: u64, cols: u64) -> Result<Tensor> {
        self.tensor_of(self.compute(), rows, cols)
    }

    /// Allocates a `[rows, cols]` matrix of `dtype` with undefined content.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn tensor_of(&self, dtype: DType, rows: u64, cols: u64) -> Result<Tensor> {
        let elements =
            rows.checked_mul(cols).ok_or_else(|| Error::run(format!("a tensor of {rows} x {cols} is too large")))?;
        Ok(Tensor::new(self.buffer(dtype, elements)?, rows, cols))
    }

    /// Creates the vector `[1, values.len()]` of i32.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn ints(&self, values: &[i32]) -> Result<Tensor> {
        let tensor = self.tensor_of(DType::I32, 1, values.len() as u64)?;
        tensor.buffer().upload_i32(0, values)?;
        Ok(tensor)
    }

    /// Creates the vector `[1, values.len()]` in the accumulator dtype.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn floats(&self, values: &[f64]) -> Result<Tensor> {
        let tensor = self.tensor_of(self.accumulator(), 1, values.len() as u64)?;
        tensor.buffer().upload(0, values)?;
        Ok(tensor)
    }
}

/// Rows `range` of `view`. If the range exceeds the view, the backend or the catalogue refuses the result.
pub fn rows(view: View, range: Range<u64>) -> View {
    View { offset: view.offset + range.start * view.row_stride, rows: range.end.saturating_sub(range.start), ..view }
}

/// Columns `range` of `view`. If the range exceeds the view, the backend or the catalogue refuses the result.
pub fn columns(view: View, range: Range<u64>) -> View {
    View { offset: view.offset + range.start, cols: range.end.saturating_sub(range.start), ..view }
}
