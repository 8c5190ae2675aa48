//! The backend contract: a session on a device owns buffers and runs the operations of [`ops`].
//!
//! [`Session`] is the trait on both ends: a backend implements it, and the host holds the loaded library as another implementation
//! of it. A layer (profile, trace, validate) is a third.

pub mod catalogue;
pub mod ops;
mod pool;

pub use crate::abi::{Attr, Call, DType, Handle, Memory, View};
pub use catalogue::Op;
pub use pool::{Pool, Storage};

use crate::{Result, manifest::BackendManifest};

/// How to open a session. Crosses as JSON, so that new fields never change a layout.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SessionOptions {
    /// `cpu`, `cuda:0`, `metal` ...
    pub device: String,
    /// Threads the session may use; at least 1.
    pub threads: usize,
    /// Marks the session's handles, so that a handle of another session is recognised. The host counts it up.
    #[serde(default)]
    pub tag: u16,
    /// The backend's own options, already checked against its manifest, defaults filled in.
    #[serde(default)]
    pub options: serde_json::Map<String, serde_json::Value>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { device: "cpu".into(), threads: 1, tag: 1, options: Default::default() }
    }
}

/// A backend plugin: describes itself and opens sessions.
pub trait Backend: 'static {
    /// The type of its sessions.
    type Session: Session + 'static;

    /// Returns its description, with the devices that were compiled in and those that have been tested.
    fn manifest() -> BackendManifest;

    /// Opens a session. Called from one thread; the session is then used by one thread at a time.
    ///
    /// # Errors
    /// [`crate::Code::DEVICE`] for a device that does not exist or was not compiled in, naming those that can be used;
    /// [`crate::Code::OPTION`] for an option's value.
    fn open(options: &SessionOptions) -> Result<Self::Session>;
}

/// Buffers and operations on one device. Not shared between threads.
pub trait Session {
    /// Runs one operation. After an error the outputs are undefined and the session stays usable.
    ///
    /// # Errors
    /// With the [`crate::Code`] that fits; the text names the operation and both sides.
    fn invoke(&mut self, call: &Call<'_>) -> Result<()>;

    /// Allocates a buffer of `elements`, content undefined.
    ///
    /// # Errors
    /// [`crate::Code::OUT_OF_MEMORY`]; [`crate::Code::DTYPE`].
    fn alloc(&mut self, dtype: DType, elements: u64) -> Result<Handle>;

    /// Frees a buffer; its handle is stale afterwards.
    ///
    /// # Errors
    /// [`crate::Code::HANDLE`].
    fn free(&mut self, buffer: Handle) -> Result<()>;

    /// Copies `bytes` (little-endian elements of the buffer's dtype) to the element at `offset`.
    ///
    /// # Errors
    /// [`crate::Code::HANDLE`] where they do not fit.
    fn upload(&mut self, buffer: Handle, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Copies elements that start at `offset` into `bytes`, after waiting for all earlier work.
    ///
    /// # Errors
    /// [`crate::Code::HANDLE`] if the range is not inside the buffer.
    fn download(&mut self, buffer: Handle, offset: u64, bytes: &mut [u8]) -> Result<()>;

    /// How often the buffer has been written. A backend that packs weights uses it to detect stale copies.
    ///
    /// # Errors
    /// [`crate::Code::HANDLE`].
    fn write_version(&self, buffer: Handle) -> Result<u64>;

    /// Whether an operation exists for a compute dtype. The result is binding: an operation reported as supported works, any other
    /// returns [`crate::Code::UNSUPPORTED`].
    fn supports(&self, op: u32, dtype: DType) -> bool;

    /// Bytes of scratch memory that the call would use beyond its operands (its handles are not read).
    fn workspace(&self, call: &Call<'_>) -> u64;

    /// Memory in use and cached.
    fn memory(&self) -> Memory;

    /// Gives cached memory back to the device.
    fn trim(&mut self);

    /// Waits for all work.
    ///
    /// # Errors
    /// The error of the work that failed.
    fn sync(&mut self) -> Result<()>;
}

/// The calls of a [`Session`] that a layer forwards to the session in its field, written in its `impl Session`: `pass_on!(inner:
/// alloc free upload);`.
#[macro_export]
macro_rules! pass_on {
    ($field:ident: $($call:ident)*) => {
        $($crate::pass_on!(@$call $field);)*
    };
    (@alloc $field:ident) => {
        fn alloc(&mut self, dtype: $crate::abi::DType, elements: u64) -> $crate::Result<$crate::abi::Handle> {
            self.$field.alloc(dtype, elements)
        }
    };
    (@free $field:ident) => {
        fn free(&mut self, buffer: $crate::abi::Handle) -> $crate::Result<()> {
            self.$field.free(buffer)
        }
    };
    (@upload $field:ident) => {
        fn upload(&mut self, buffer: $crate::abi::Handle, offset: u64, bytes: &[u8]) -> $crate::Result<()> {
            self.$field.upload(buffer, offset, bytes)
        }
    };
    (@download $field:ident) => {
        fn download(&mut self, buffer: $crate::abi::Handle, offset: u64, bytes: &mut [u8]) -> $crate::Result<()> {
            self.$field.download(buffer, offset, bytes)
        }
    };
    (@write_version $field:ident) => {
        fn write_version(&self, buffer: $crate::abi::Handle) -> $crate::Result<u64> {
            self.$field.write_version(buffer)
        }
    };
    (@supports $field:ident) => {
        fn supports(&self, op: u32, dtype: $crate::abi::DType) -> bool {
            self.$field.supports(op, dtype)
        }
    };
    (@workspace $field:ident) => {
        fn workspace(&self, call: &$crate::abi::Call<'_>) -> u64 {
            self.$field.workspace(call)
        }
    };
    (@memory $field:ident) => {
        fn memory(&self) -> $crate::abi::Memory {
            self.$field.memory()
        }
    };
    (@trim $field:ident) => {
        fn trim(&mut self) {
            self.$field.trim();
        }
    };
    (@sync $field:ident) => {
        fn sync(&mut self) -> $crate::Result<()> {
            self.$field.sync()
        }
    };
}
