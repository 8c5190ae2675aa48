//! The stable contracts between the Telos host and its plugins, and the SDK to write plugins with.

pub mod abi;
pub mod backend;
pub mod error;
pub mod manifest;
// pub mod tape;

pub use error::{Code, Error, Result};
