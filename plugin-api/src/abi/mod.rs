//! The stable layout. Besides this module, only `export` and the crate `plugin-api-load` use `abi_stable`.
//!
//! [`types`] holds the plain data of each call, [`tables`] the function tables that a library exports.

pub mod header;
pub mod tables;
pub mod types;
pub mod wire;

pub use abi_stable::std_types::{RResult, RSlice, RStr, RString, RVec};
pub use types::{AbiError, ArrayOwned, ArrayRef, Attr, Call, DType, Handle, Memory, Status, View};
