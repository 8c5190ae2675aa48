//! Which plugins there are, and that they are still the ones a folder of runs was made with.
//!
//! What a plugin is and how it is called is the business of `plugin-api`.

pub mod libraries;
pub mod lock;
mod lock_file;
pub mod registry;

pub use lock::{Lock, Pinning};
pub use registry::Registry;
