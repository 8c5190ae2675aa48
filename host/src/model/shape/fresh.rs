//! The shape of a model with fresh weights, as an experiment gives it.

use serde::Serialize;

use crate::families::Family;

/// The shape of a decoder with fresh weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shape {
    /// The family.
    pub arch: &'static Family,
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream; a multiple of `heads`.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`; absent for a family that always has `heads` of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Width inside the feed-forward block.
    pub hidden: usize,
    /// Longest sequence in tokens.
    pub context: usize,
    /// Rows of the embedding and the head; absent: the size of the tokenizer's vocabulary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab: Option<usize>,
    /// Whether the output head shares the embedding's weights.
    pub tied: bool,
    /// Epsilon inside the norms.
    pub norm_eps: f64,
    /// Base of the rotary frequencies; absent if positions are learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Standard deviation of the initial weights.
    pub init_std: f64,
}

impl Shape {
    /// The number of key and value heads, for every family.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads.unwrap_or(self.heads)
    }
}
