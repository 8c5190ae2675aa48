//! A session that computes nothing and only counts: which buffers a computation holds, and how much memory they take.
//!
//! Sizes and reuse of buffers are those of the SDK's pool, which every backend of this project uses. Downloads return zeros.
//! The scratch memory of an operation is the size that the real backend reports.

use std::{cell::Cell, rc::Rc};

use plugin_api::{
    Result,
    abi::{Call, DType, Handle, Memory},
    backend::{Pool, Session, Storage},
};

use super::session::Device;

/// Placeholder for a buffer's content.
struct Nothing;

impl Storage for Nothing {
    type Device = ();

    fn allocate((): &(), _: DType, _: u64) -> Result<Self> {
        Ok(Nothing)
    }
}

/// The peak number of bytes; clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Counted(Rc<Cell<u64>>);

impl Counted {
    /// Peak bytes of buffers, live and spare.
    pub fn most(&self) -> u64 {
        self.0.get()
    }
}

/// A session that only counts.
pub struct SizesOnly {
    /// The device whose operations and scratch sizes it reports.
    real: Device,
    pool: Pool<Nothing>,
    counted: Counted,
}

/// Distinguishes its handles from a real session's.
const TAG: u16 = 0x5153;

impl SizesOnly {
    /// Creates a device on a session that only counts, in the dtype and with the operations of `real`. Returns it with its
    /// count.
    ///
    /// # Errors
    /// As [`Device::new`]; never if `real` was created by it.
    pub fn device(real: &Device) -> crate::error::Result<(Device, Counted)> {
        let counted = Counted::default();
        let session = SizesOnly { real: real.clone(), pool: Pool::new((), TAG), counted: counted.clone() };
        Ok((Device::new(Box::new(session), real.compute())?, counted))
    }
}

impl Session for SizesOnly {
    fn invoke(&mut self, _: &Call<'_>) -> Result<()> {
        Ok(())
    }

    fn alloc(&mut self, dtype: DType, elements: u64) -> Result<Handle> {
        let handle = self.pool.alloc(dtype, elements)?;
        let Memory { in_use, cached, .. } = self.pool.memory();
        self.counted.0.set(self.counted.0.get().max(in_use + cached));
        Ok(handle)
    }

    fn upload(&mut self, _: Handle, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&mut self, _: Handle, _: u64, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        Ok(())
    }

    fn supports(&self, op: u32, dtype: DType) -> bool {
        self.real.supports(op, dtype)
    }

    fn workspace(&self, call: &Call<'_>) -> u64 {
        self.real.workspace(call)
    }

    plugin_api::pass_on!(pool: free write_version memory trim);

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}
