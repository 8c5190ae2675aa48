//! The session: buffers in a pool, operations through the SDK's dispatcher.

use crate::storage::{Buffer, computes};
use plugin_api::{
    Code, Error, Result,
    backend::{
        Call, DType, Handle, Memory, Pool, Session,
        ops::{CATALOGUE, dispatch},
    },
};

/// A session of the reference backend.
pub struct Reference {
    pub(crate) pool: Pool<Buffer>,
}

impl Reference {
    /// A session whose handles carry `tag`.
    pub fn new(tag: u16) -> Self {
        Reference { pool: Pool::new((), tag) }
    }

    /// The byte range of `length` bytes that starts at element `offset`, checked against the buffer.
    fn byte_range(&self, buffer: Handle, offset: u64, length: usize) -> Result<std::ops::Range<usize>> {
        let (_, dtype, _) = self.pool.buffer(buffer)?;
        let size = dtype.size().unwrap_or(1);
        if !length.is_multiple_of(size) {
            return Err(Error::invalid(format!("{length} bytes are not a whole number of {dtype} elements")));
        }
        self.pool.check_range(buffer, offset, (length / size) as u64)?;
        let start = offset as usize * size;
        Ok(start..start + length)
    }
}

impl Session for Reference {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        // Every given view must lie in a live buffer, including those that this operation does not read.
        for view in call.inputs.iter().chain(call.outputs.iter()).filter(|view| !view.is_none()) {
            self.pool.check(view)?;
        }
        dispatch(self, call)
    }

    fn alloc(&mut self, dtype: DType, elements: u64) -> Result<Handle> {
        self.pool.alloc(dtype, elements)
    }

    fn free(&mut self, buffer: Handle) -> Result<()> {
        self.pool.free(buffer)
    }

    fn upload(&mut self, buffer: Handle, offset: u64, bytes: &[u8]) -> Result<()> {
        let range = self.byte_range(buffer, offset, bytes.len())?;
        let (storage, _, _) = self.pool.buffer_mut(buffer)?;
        storage.bytes_mut()[range].copy_from_slice(bytes);
        Ok(())
    }

    fn download(&mut self, buffer: Handle, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let range = self.byte_range(buffer, offset, bytes.len())?;
        let (storage, _, _) = self.pool.buffer(buffer)?;
        bytes.copy_from_slice(&storage.bytes()[range]);
        Ok(())
    }

    fn write_version(&self, buffer: Handle) -> Result<u64> {
        self.pool.write_version(buffer)
    }

    fn supports(&self, op: u32, dtype: DType) -> bool {
        computes(dtype) && CATALOGUE.iter().any(|spec| spec.id == op)
    }

    /// The f64 copies of the operands; other memory of an operation is small in comparison.
    fn workspace(&self, call: &Call<'_>) -> u64 {
        let operands = call.inputs.iter().chain(call.outputs.iter());
        operands.map(|view| 8u64.saturating_mul(view.rows.saturating_mul(view.cols))).fold(0, u64::saturating_add)
    }

    fn memory(&self) -> Memory {
        self.pool.memory()
    }

    fn trim(&mut self) {
        self.pool.trim();
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reference").field("memory", &self.pool.memory()).finish_non_exhaustive()
    }
}

/// Refuses attributes that contradict each other.
pub(crate) fn require(holds: bool, op: &str, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::invalid(format!("{op}: {}", what()))) }
}

/// Refuses shapes that contradict the attributes.
pub(crate) fn require_shape(holds: bool, op: &str, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::new(Code::SHAPE, format!("{op}: {}", what()))) }
}
