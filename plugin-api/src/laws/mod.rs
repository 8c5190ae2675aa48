//! Laws: what any plugin of a kind must satisfy, as tables its author re-uses.

pub mod backend;
pub mod faulty;
pub mod objective;
mod report;
mod rng;

pub use report::{Agreement, Broken, Line, Report};
pub use rng::SplitMix64;
