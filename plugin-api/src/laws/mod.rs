//! Laws: what any plugin of a kind must satisfy, as tables its author re-uses.

pub mod objective;
mod report;

pub use report::{Line, Report};
