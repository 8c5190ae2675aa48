//! Qwen 2, 2.5 and 3: Llama's pieces, with biases of queries, keys and values (2 and 2.5) or with norms of queries and keys (3).

use super::family::{Bias, Biases, Defaults, Family, Names, OFF, WHOLE_HEADS, Windows};
use super::llama::LLAMA;

/// RMS norms, rotary positions, a gated feed-forward block, biases of queries, keys and values; a sliding window in the upper layers
/// where config.json switches it on.
pub const QWEN2: Family = Family {
    model_type: "qwen2",
    summary: "as llama, with biases of queries, keys and values",
    class: "Qwen2ForCausalLM",
    scalar_class: "Qwen2ForSequenceClassification",
    biases: Biases { qkv: Bias::Yes, output: Bias::No, mlp: Bias::No },
    windows: Windows::Switched { default: 4096, full_layers: 28 },
    defaults: Defaults { kv_heads: Some(32), context: 32_768, ..LLAMA.defaults },
    fixed: &[("mlp_bias", OFF), WHOLE_HEADS],
    ..LLAMA
};

/// RMS norms, also of queries and keys, rotary positions, a gated feed-forward block.
pub const QWEN3: Family = Family {
    model_type: "qwen3",
    summary: "as llama, with norms of queries and keys",
    class: "Qwen3ForCausalLM",
    scalar_class: "Qwen3ForSequenceClassification",
    biases: Biases { mlp: Bias::No, ..LLAMA.biases },
    defaults: Defaults { head_dim: Some(128), ..QWEN2.defaults },
    names: Names { head_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]), ..QWEN2.names },
    ..QWEN2
};
