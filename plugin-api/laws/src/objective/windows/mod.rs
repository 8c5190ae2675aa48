//! The windows that laws look at: generated, taken apart, put into words.

mod cut;
mod describe;
mod generator;
pub(super) mod sequences;

pub(super) use cut::Cut;
pub(super) use describe::describe;
pub use generator::{Generator, Values};
