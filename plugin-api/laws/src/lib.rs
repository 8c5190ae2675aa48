//! Laws: what any plugin of a kind must satisfy, as tables its author re-uses.
//!
//! An author's test calls [`objective::verify`], [`reward::verify`] or [`backend::verify`] on a plugin's own types, without loading
//! anything; `telos plugins verify` checks the same laws on the built library. [`faulty`] is a backend with planted mistakes, for
//! tests that the laws find them.

pub mod backend;
pub mod faulty;
pub mod objective;
mod options;
mod report;
pub mod reward;
mod variations;

pub use report::{Agreement, Broken, Line, Report};
pub use variations::{told, variations};
