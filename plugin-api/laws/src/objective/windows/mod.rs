//! The windows that laws use: generated, split, described in words.

mod candidates;
mod cut;
mod describe;
mod extra;
mod generator;
pub(super) mod sequences;
mod values;

pub(super) use cut::Cut;
pub(super) use describe::describe;
pub use generator::Generator;
pub use values::Values;
