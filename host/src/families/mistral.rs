//! Mistral: Llama's pieces without biases, with a sliding window in every layer.

use super::family::{Biases, Defaults, Family, OFF, WHOLE_HEADS, Windows};
use super::llama::LLAMA;

/// RMS norms, rotary positions, a gated feed-forward block, a sliding window.
pub const MISTRAL: Family = Family {
    model_type: "mistral",
    summary: "as llama, without biases, with a sliding window",
    class: "MistralForCausalLM",
    scalar_class: "MistralForSequenceClassification",
    biases: Biases::NEVER,
    windows: Windows::EveryLayer { default: Some(4096) },
    defaults: Defaults { kv_heads: Some(8), context: 131_072, ..LLAMA.defaults },
    fixed: &[("attention_bias", OFF), ("mlp_bias", OFF), WHOLE_HEADS],
    ..LLAMA
};
