//! A loaded backend's session.

use super::answers::{check, json};
use plugin_api::{
    Error, Result,
    abi::{
        RSlice, Status,
        tables::{BackendTableRef, Instance},
    },
    backend::{Call, DType, Handle, Memory, Session, SessionOptions},
};

/// A session behind its table; used like a local one.
pub struct LoadedSession {
    table: BackendTableRef,
    /// Read once, because it is called for every operation.
    invoke: extern "C" fn(Instance, &Call<'_>) -> Status,
    instance: Instance,
}

impl LoadedSession {
    pub(super) fn open(table: BackendTableRef, options: &SessionOptions) -> Result<Self> {
        let mut instance = Instance(std::ptr::null_mut());
        let options = json(options)?;
        check((table.open())(RSlice::from_slice(&options), &mut instance))?;
        if instance.0.is_null() {
            return Err(Error::internal("`open` returned no session"));
        }
        Ok(Self { table, invoke: table.invoke(), instance })
    }

    /// Returns the value of a slot appended by the next minor version, or `None` if the slot is missing: for the test that crosses
    /// minor versions.
    #[cfg(feature = "next-minor")]
    pub fn appended(&self) -> Option<u64> {
        self.table.appended().map(|slot| slot(self.instance))
    }
}

impl Drop for LoadedSession {
    fn drop(&mut self) {
        (self.table.close())(self.instance);
    }
}

impl Session for LoadedSession {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        check((self.invoke)(self.instance, call))
    }

    fn alloc(&mut self, dtype: DType, elements: u64) -> Result<Handle> {
        let mut handle = Handle::NONE;
        check((self.table.alloc())(self.instance, dtype, elements, &mut handle))?;
        Ok(handle)
    }

    fn free(&mut self, buffer: Handle) -> Result<()> {
        check((self.table.free())(self.instance, buffer))
    }

    fn upload(&mut self, buffer: Handle, offset: u64, bytes: &[u8]) -> Result<()> {
        check((self.table.upload())(self.instance, buffer, offset, RSlice::from_slice(bytes)))
    }

    fn download(&mut self, buffer: Handle, offset: u64, bytes: &mut [u8]) -> Result<()> {
        check((self.table.download())(self.instance, buffer, offset, bytes.as_mut_ptr(), bytes.len() as u64))
    }

    fn write_version(&self, buffer: Handle) -> Result<u64> {
        let mut version = 0;
        check((self.table.write_version())(self.instance, buffer, &mut version))?;
        Ok(version)
    }

    fn supports(&self, op: u32, dtype: DType) -> bool {
        (self.table.supports())(self.instance, op, dtype) != 0
    }

    fn workspace(&self, call: &Call<'_>) -> u64 {
        (self.table.workspace())(self.instance, call)
    }

    fn memory(&self) -> Memory {
        (self.table.memory())(self.instance)
    }

    fn trim(&mut self) {
        (self.table.trim())(self.instance);
    }

    fn sync(&mut self) -> Result<()> {
        check((self.table.sync())(self.instance))
    }
}
