//! The size of a model, before it is allocated.

use plugin_api::abi::DType;

use super::params::Layout;
use super::shape::config::ModelConfig;
use crate::error::Result;
use crate::families::family::Positions;

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
