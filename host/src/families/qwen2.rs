//! Qwen 2 and 2.5: Llama's pieces with biases of queries, keys and values alone.

use super::family::{Biases, Defaults, Family, OFF, Windows};
use super::llama::LLAMA;

/// RMS norms, rotary positions, a gated feed-forward block, biases of queries, keys and values; a sliding window in the upper layers
/// where config.json switches it on.
pub const QWEN2: Family = Family {
    model_type: "qwen2",
    summary: "as llama, with biases of queries, keys and values",
    class: "Qwen2ForCausalLM",
    scalar_class: "Qwen2ForSequenceClassification",
    biases: Biases::QueriesKeysValues,
    windows: Windows::Switched { default: 4096, full_layers: 28 },
    defaults: Defaults { context: 32_768, ..LLAMA.defaults },
    fixed: &[
        ("mlp_bias", OFF),
        ("partial_rotary_factor", &["null", "1.0", "1"]),
        ("quantization_config", &["null"]),
        ("is_encoder_decoder", OFF),
        ("is_causal", &["null", "true"]),
    ],
    ..LLAMA
};
