//! Values between host and device, converted to and from the buffer's dtype; rounding is to nearest even.

use half::bf16;
use plugin_api::abi::DType;

use super::{rounding::nearest_bf16, tensor::Buffer};
use crate::error::{Error, Result};

// Elements are transferred as little-endian bytes and reinterpreted here without swapping.
const _: () = assert!(cfg!(target_endian = "little"), "the host's transfers assume a little-endian machine");

/// Elements converted at a time, so that a large upload needs no second copy of all values.
const CHUNK: usize = 1 << 20;

impl Buffer {
    /// Writes `values` from element `offset` on.
    ///
    /// # Errors
    /// The buffer holds integers, or the values do not fit.
    pub fn upload(&self, offset: u64, values: &[f64]) -> Result<()> {
        match self.dtype() {
            DType::F64 => self.upload_bytes(offset, bytemuck::cast_slice(values)),
            DType::F32 => self.upload_converted(offset, values, |v| v as f32),
            DType::BF16 => self.upload_converted(offset, values, nearest_bf16),
            _ => Err(self.not_float()),
        }
    }

    /// Writes `values` from element `offset` on.
    ///
    /// # Errors
    /// The buffer holds integers, or the values do not fit.
    pub fn upload_f32(&self, offset: u64, values: &[f32]) -> Result<()> {
        match self.dtype() {
            DType::F32 => self.upload_bytes(offset, bytemuck::cast_slice(values)),
            DType::F64 => self.upload_converted(offset, values, f64::from),
            DType::BF16 => self.upload_converted(offset, values, bf16::from_f32),
            _ => Err(self.not_float()),
        }
    }

    /// Writes `values` from element `offset` on.
    ///
    /// # Errors
    /// The buffer holds floats, or the values do not fit.
    pub fn upload_i32(&self, offset: u64, values: &[i32]) -> Result<()> {
        if self.dtype() != DType::I32 {
            return Err(Error::run(format!("expected a buffer of integers, found {self:?}")));
        }
        self.upload_bytes(offset, bytemuck::cast_slice(values))
    }

    /// Reads `length` floats from element `offset` on.
    ///
    /// # Errors
    /// The buffer holds integers, or fewer elements.
    pub fn download(&self, offset: u64, length: u64) -> Result<Vec<f64>> {
        match self.dtype() {
            DType::F64 => self.raw::<f64>(offset, length),
            DType::F32 => Ok(self.raw::<f32>(offset, length)?.into_iter().map(f64::from).collect()),
            DType::BF16 => Ok(self.raw::<bf16>(offset, length)?.into_iter().map(f64::from).collect()),
            _ => Err(self.not_float()),
        }
    }

    /// Reads `length` integers from element `offset` on.
    ///
    /// # Errors
    /// The buffer holds floats, or fewer elements.
    pub fn download_i32(&self, offset: u64, length: u64) -> Result<Vec<i32>> {
        if self.dtype() != DType::I32 {
            return Err(Error::run(format!("expected a buffer of integers, found {self:?}")));
        }
        self.raw::<i32>(offset, length)
    }

    /// Reads `length` elements from element `offset` on as the little-endian bytes of the buffer's dtype.
    ///
    /// # Errors
    /// The buffer holds fewer elements.
    pub fn download_raw(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let size = self.dtype().size().unwrap_or(1) as u64;
        let mut bytes = vec![0_u8; self.checked(offset, length)? * size as usize];
        self.download_bytes(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes elements, given as the little-endian bytes of the buffer's dtype, from element `offset` on.
    ///
    /// # Errors
    /// They do not fit.
    pub fn upload_raw(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.upload_bytes(offset, bytes)
    }

    fn upload_converted<S: Copy, E: bytemuck::NoUninit>(
        &self,
        offset: u64,
        values: &[S],
        convert: impl Fn(S) -> E,
    ) -> Result<()> {
        let mut at = offset;
        for chunk in values.chunks(CHUNK) {
            let converted: Vec<E> = chunk.iter().map(|v| convert(*v)).collect();
            self.upload_bytes(at, bytemuck::cast_slice(&converted))?;
            at += chunk.len() as u64;
        }
        Ok(())
    }

    fn raw<E: bytemuck::Pod>(&self, offset: u64, length: u64) -> Result<Vec<E>> {
        let mut values = vec![E::zeroed(); self.checked(offset, length)?];
        self.download_bytes(offset, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// Checks the range before the host allocates memory.
    fn checked(&self, offset: u64, length: u64) -> Result<usize> {
        match offset.checked_add(length) {
            Some(end) if end <= self.len() => Ok(length as usize),
            _ => Err(Error::run(format!("{length} elements from element {offset} on do not fit into {self:?}"))),
        }
    }

    fn not_float(&self) -> Error {
        Error::run(format!("expected a buffer of floats, found {self:?}"))
    }
}
