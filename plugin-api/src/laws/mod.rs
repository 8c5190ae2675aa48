//! Laws: what any plugin of a kind must satisfy, as tables its author re-uses.

pub mod backend;
pub mod faulty;
pub mod objective;
mod options;
mod report;
pub mod reward;
mod variations;

pub use report::{Agreement, Broken, Line, Report};
pub use telos_random::SplitMix64;
pub use variations::{told, variations};
