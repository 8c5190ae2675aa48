//! The size of a model, before it is allocated.

use plugin_api::abi::DType;

use super::compute::activations::Recompute;
use super::params::Layout;
use super::shape::config::ModelConfig;
use crate::error::Result;
use crate::families::family::{Mlp, Positions};

/// Returns a model's number of parameters, and the bytes of `copies` copies of them with the rotation tables, computing in
/// `compute`.
///
/// # Errors
/// The model is too large to address.
pub fn size(config: &ModelConfig, compute: DType, copies: u64) -> Result<(u64, u64)> {
    let layout = Layout::new(config)?;
    let number = if compute == DType::F64 { 8 } else { 4 };
    let shadow = if compute == DType::BF16 { 2 } else { 0 };
    let tables = match config.family.positions {
        Positions::Rotary => 1 + u64::from(config.ropes.local.is_some()),
        Positions::Learned => 0,
    };
    let rotations = tables * config.context * config.head_dim;
    let bytes = layout.flat_len().saturating_mul(copies * number + shadow).saturating_add(rotations * number);
    Ok((layout.count(), bytes))
}

/// Returns the bytes of activations that a forward pass keeps for the backward pass, per position, computing in `compute`: those of
/// the layers, without the small statistics of norms and attention.
pub fn kept_bytes(config: &ModelConfig, recompute: Recompute, compute: DType) -> u64 {
    let queries_keys = config.query_width() + config.kv_width();
    let unnormed = if config.family.names.head_norms.is_some() { queries_keys } else { 0 };
    let up = if config.family.mlp == Mlp::Gated { 2 * config.hidden } else { config.hidden };
    let cheap = 2 * config.dim + config.hidden;
    let dear = config.dim + unnormed + queries_keys + config.kv_width() + config.query_width() + up;
    let recomputed = match recompute {
        Recompute::None => 0,
        Recompute::Auto => cheap,
        Recompute::All => cheap + dear,
    };
    let number = compute.size().unwrap_or(4) as u64;
    config.layers * (config.dim + dear + cheap - recomputed) * number
}
