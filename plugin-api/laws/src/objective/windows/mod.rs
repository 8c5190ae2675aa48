//! The windows that laws use: generated, split, described in words.

mod cut;
mod describe;
mod generator;
pub(super) mod sequences;

pub(super) use cut::Cut;
pub(super) use describe::describe;
pub use generator::{Generator, Values};
