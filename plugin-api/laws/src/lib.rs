//! Laws: what every plugin of a kind must satisfy, as tables for its author's tests.
//!
//! An author's test calls [`objective::verify`], [`reward::verify`] or [`backend::verify`] on a plugin's own types, without
//! loading a library; `telos plugins verify` checks the same laws on the built library. [`faulty`] is a backend with deliberate
//! mistakes, for tests that the laws find them.

pub mod backend;
pub mod faulty;
pub mod objective;
mod options;
mod report;
pub mod reward;
mod variations;

pub use report::{Agreement, Broken, Line, Report};
pub use variations::{told, variations};
