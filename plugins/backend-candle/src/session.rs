//! A session: buffers, and the path on which its operations run.

use crate::{
    generic::Generic,
    kernels::{Context, Kernels},
    storage::Storage,
    workspace,
};
use candle_core::Device;
use plugin_api::{
    Code, Error, Result,
    backend::{Call, DType, Handle, Memory, Pool, Session, ops},
};

/// The code that runs the operations.
pub enum Path {
    /// The processor's own kernels.
    Kernels(Box<Context>),
    /// candle's tensor operations, on any device.
    Generic,
}

/// Buffers on one device and the path that computes on them.
pub struct CandleSession {
    pool: Pool<Storage>,
    path: Path,
}

impl CandleSession {
    /// An empty session.
    pub fn new(device: Device, tag: u16, path: Path) -> Self {
        CandleSession { pool: Pool::new(device, tag), path }
    }

    /// Checks the range of `bytes` bytes that starts at element `offset`.
    fn range(&self, buffer: Handle, offset: u64, bytes: usize) -> Result<()> {
        let (_, dtype, _) = self.pool.buffer(buffer)?;
        let size = dtype.size().unwrap_or(1);
        if !bytes.is_multiple_of(size) {
            return Err(Error::new(Code::HANDLE, format!("{bytes} bytes are not a whole number of {dtype}")));
        }
        self.pool.check_range(buffer, offset, (bytes / size) as u64)?;
        Ok(())
    }
}

impl Session for CandleSession {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        match &mut self.path {
            Path::Kernels(cx) => ops::dispatch(&mut Kernels { pool: &mut self.pool, cx }, call),
            Path::Generic => ops::dispatch(&mut Generic { pool: &mut self.pool }, call),
        }
    }

    fn alloc(&mut self, dtype: DType, elements: u64) -> Result<Handle> {
        self.pool.alloc(dtype, elements)
    }

    fn free(&mut self, buffer: Handle) -> Result<()> {
        self.pool.free(buffer)
    }

    fn upload(&mut self, buffer: Handle, offset: u64, bytes: &[u8]) -> Result<()> {
        self.range(buffer, offset, bytes.len())?;
        let (storage, ..) = self.pool.buffer_mut(buffer)?;
        storage.write(offset as usize, bytes)
    }

    fn download(&mut self, buffer: Handle, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.range(buffer, offset, bytes.len())?;
        let (storage, ..) = self.pool.buffer(buffer)?;
        storage.read(offset as usize, bytes)
    }

    fn write_version(&self, buffer: Handle) -> Result<u64> {
        self.pool.write_version(buffer)
    }

    fn supports(&self, op: u32, dtype: DType) -> bool {
        workspace::supports(op, dtype)
    }

    fn workspace(&self, call: &Call<'_>) -> u64 {
        match self.path {
            Path::Kernels(_) => workspace::kernels(call),
            Path::Generic => workspace::generic(call),
        }
    }

    fn memory(&self) -> Memory {
        self.pool.memory()
    }

    fn trim(&mut self) {
        self.pool.trim();
        if let Path::Kernels(cx) = &mut self.path {
            cx.trim();
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.pool.device().synchronize().map_err(|e| crate::storage::candle_error("sync", e))
    }
}
