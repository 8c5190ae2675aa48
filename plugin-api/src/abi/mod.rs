//! The stable layout. Besides this module only the crate `plugin-api-load` uses `abi_stable`; `cargo xtask map` checks it.
//!
//! [`types`] holds the plain data of each call, [`tables`] the function tables that a library exports, [`root`] what leads to them.

pub mod header;
pub mod ratings;
pub mod root;
pub mod tables;
pub mod types;
pub mod wire;

pub use abi_stable::std_types::{RErr, ROk, RResult, RSlice, RStr, RString, RVec};
pub use types::{AbiError, ArrayOwned, ArrayRef, Attr, Call, DType, Handle, Memory, Status, View};
