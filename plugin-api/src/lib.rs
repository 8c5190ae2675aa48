//! The stable contracts between the Telos host and its plugins, and the SDK to write plugins with.

pub mod abi;
pub mod backend;
pub mod batch;
pub mod error;
pub mod export;
#[cfg(feature = "host")]
pub mod load;
pub mod manifest;
pub mod objective;
pub mod options;
pub mod reward;
pub mod tape;

pub use error::{Code, Error, Result};
