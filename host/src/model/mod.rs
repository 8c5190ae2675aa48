//! The decoder family over the operation catalogue: shape, parameters, files, forward, backward, head.
//!
//! | file | job |
//! |---|---|
//! | [`shape`] | the shape of a model, its JSON files in and out |
//! | [`params`] | the flat layout and initial values |
//! | [`open`] | a model from a folder: weights, or an adapter over those of another folder |
//! | [`size`](mod@size) | the size of a model before it is allocated |
//! | [`files`] | a folder's tensors in and out |
//! | `loaded` | a model on a device |
//! | [`adapter`] | low-rank adapters over frozen weights |
//! | [`compute`] | forward, backward, heads, generation |
//!
//! Knows no objective and no optimizer: cotangents come in, gradients accumulate in a flat buffer.

pub mod adapter;
pub mod compute;
pub mod files;
#[cfg(test)]
mod fuzz_tests;
mod loaded;
pub mod open;
pub mod params;
pub mod shape;
mod size;

pub use compute::activations::{BatchView, Forward, Keep, Recompute};
pub use compute::head::{
    CandidateCotangents, CandidateLogps, CandidateRequest, Cotangents, DivergenceRequest, Divergences, Head,
    HeadRequest, HeadStats, Statistics, TopIds, TopIdsRequest,
};
pub use loaded::{Learned, Model};
pub use params::{Layout, Parameter};
pub use shape::config::{ModelConfig, Outputs};
pub use size::{Copies, kept_bytes, size};
