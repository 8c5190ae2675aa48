//! Owned device memory: freed when the last owner goes, handed to operations as views.

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

    /// The device it lies on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// How many elements it holds.
    pub fn len(&self) -> u64 {
        self.elements
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// The whole buffer as the vector `[1, len]`.
    pub fn view(&self) -> View {
        self.matrix(0, 1, self.elements)
    }

    /// The dense `[rows, cols]` matrix that starts `offset` elements in. The backend refuses one that leaves the buffer.
    pub fn matrix(&self, offset: u64, rows: u64, cols: u64) -> View {
        View { offset, ..View::dense(self.handle, self.dtype, rows, cols) }
    }

    /// How often it has been written.
    ///
    /// # Errors
    /// The backend's.
    pub fn write_version(&self) -> Result<u64> {
        Ok(self.device.0.session.borrow().write_version(self.handle)?)
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
        // Nobody can act on a failure here, and the session is about to end where there is one; it is borrowed only
        // where a call is unwinding.
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

/// A dense matrix that owns its buffer together with its clones.
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

    /// All of it.
    pub fn view(&self) -> View {
        self.buffer.matrix(0, self.rows, self.cols)
    }

    /// Some of its rows.
    pub fn rows(&self, range: Range<u64>) -> View {
        rows(self.view(), range)
    }

    /// Some of its columns.
    pub fn cols(&self, range: Range<u64>) -> View {
        columns(self.view(), range)
    }

    /// Its values, row by row.
    ///
    /// # Errors
    /// The backend's.
    pub fn to_vec(&self) -> Result<Vec<f64>> {
        self.buffer.download(0, self.rows * self.cols)
    }

    /// Its values, where they are i32.
    ///
    /// # Errors
    /// The tensor is of floats; the backend's.
    pub fn to_ints(&self) -> Result<Vec<i32>> {
        if self.buffer.dtype() != DType::I32 {
            return Err(Error::run(format!("{:?} holds no integers", self.buffer)));
        }
        self.buffer.download_i32(0, self.rows * self.cols)
    }
}

impl Device {
    /// A buffer of `elements`, content undefined.
    ///
    /// # Errors
    /// The device is out of memory or lacks the dtype.
    pub fn buffer(&self, dtype: DType, elements: u64) -> Result<Buffer> {
        let handle = self.0.session.borrow_mut().alloc(dtype, elements)?;
        Ok(Buffer::new(self.clone(), handle, dtype, elements))
    }

    /// A `[rows, cols]` matrix of the compute dtype, content undefined.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn tensor(&self, rows: u64, cols: u64) -> Result<Tensor> {
        self.tensor_of(self.compute(), rows, cols)
    }

    /// A `[rows, cols]` matrix of `dtype`, content undefined.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn tensor_of(&self, dtype: DType, rows: u64, cols: u64) -> Result<Tensor> {
        let elements =
            rows.checked_mul(cols).ok_or_else(|| Error::run(format!("a tensor of {rows} x {cols} is too large")))?;
        Ok(Tensor::new(self.buffer(dtype, elements)?, rows, cols))
    }

    /// The vector `[1, values.len()]` of i32.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn ints(&self, values: &[i32]) -> Result<Tensor> {
        let tensor = self.tensor_of(DType::I32, 1, values.len() as u64)?;
        tensor.buffer().upload_i32(0, values)?;
        Ok(tensor)
    }

    /// The vector `[1, values.len()]` in the accumulator dtype.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn floats(&self, values: &[f64]) -> Result<Tensor> {
        let tensor = self.tensor_of(self.accumulator(), 1, values.len() as u64)?;
        tensor.buffer().upload(0, values)?;
        Ok(tensor)
    }
}

/// Rows `range` of `view`. A range that leaves the view yields one that the backend or the catalogue refuses.
pub fn rows(view: View, range: Range<u64>) -> View {
    View { offset: view.offset + range.start * view.row_stride, rows: range.end.saturating_sub(range.start), ..view }
}

/// Columns `range` of `view`. A range that leaves the view yields one that the backend or the catalogue refuses.
pub fn columns(view: View, range: Range<u64>) -> View {
    View { offset: view.offset + range.start, cols: range.end.saturating_sub(range.start), ..view }
}
