//! The host's view of a backend session: buffers that free themselves, typed calls, transfers with conversion.
//!
//! This module does not know models or plugin loading: it receives an open [`Session`](plugin_api::backend::Session) (a loaded
//! library, a linked one, or a layer such as [`profile`] around either) and a compute dtype. The backend checks every call
//! against the catalogue.

mod dtype;
pub mod open;
pub mod operation_times;
pub mod profile;
pub mod rounding;
mod session;
pub mod sizes;
mod tensor;
mod transfer;

pub use dtype::Dtype;
pub use session::Device;
pub use tensor::{Buffer, Tensor, columns, rows};
