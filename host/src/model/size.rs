//! The size of a model, before it is allocated.

use plugin_api::abi::DType;

use super::params::Layout;
use super::shape::config::ModelConfig;
use crate::error::Result;
use crate::families::family::{Mlp, Positions};

/// How often memory holds the parameters of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// Once, in the compute dtype: frozen weights.
    Frozen,
    /// This often in the accumulator dtype, and once in the compute dtype if it is another one.
    Trained(u64),
}

/// Returns a model's number of parameters, and the bytes of the `copies` of them with the rotation tables, computing in `compute`.
///
/// # Errors
/// The model is too large to address.
pub fn size(config: &ModelConfig, compute: DType, copies: Copies) -> Result<(u64, u64)> {
    let layout = Layout::new(config)?;
    let number = if compute == DType::F64 { 8 } else { 4 };
    let shadow = if compute == DType::BF16 { 2 } else { 0 };
    let of_parameter = match copies {
        Copies::Frozen => compute.size().unwrap_or(4) as u64,
        Copies::Trained(copies) => copies * number + shadow,
    };
    let tables = match config.family.positions {
        Positions::Rotary => 1 + u64::from(config.ropes.local.is_some()),
        Positions::Learned => 0,
    };
    let rotations = tables * config.context * config.head_dim;
    let bytes = layout.flat_len().saturating_mul(of_parameter).saturating_add(rotations * number);
    Ok((layout.count(), bytes))
}

/// Returns the bytes of activations that a forward pass keeps for the backward pass if it recomputes nothing, per position, computing
/// in `compute`: those of the layers, without the small statistics of norms and attention.
pub fn kept_bytes(config: &ModelConfig, compute: DType) -> u64 {
    let names = &config.family.names;
    let norms = [names.norm1, names.norm2, names.post1, names.post2].into_iter().flatten().count() as u64;
    let queries_keys = config.query_width() + config.kv_width();
    let unnormed = if names.head_norms.is_some() { queries_keys } else { 0 };
    let up = if config.family.mlp == Mlp::Gated { 2 * config.hidden } else { config.hidden };
    // The layer's input, and the stream between its branches unless they are parallel.
    let streams = if config.parallel { 1 } else { 2 };
    let attention = unnormed + queries_keys + config.kv_width() + config.query_width();
    let number = compute.size().unwrap_or(4) as u64;
    config.layers * ((streams + norms) * config.dim + attention + up + config.hidden) * number
}
