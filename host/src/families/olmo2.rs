//! OLMo 2: Llama's pieces with norms after both branches instead of before them, and norms of all queries and of all keys.

use super::family::{Bias, Biases, Defaults, Family, Keys, Names, OFF, WHOLE_HEADS};
use super::llama::LLAMA;

/// RMS norms of the branches' outputs and of queries and keys, rotary positions, a gated feed-forward block.
pub const OLMO2: Family = Family {
    model_type: "olmo2",
    summary: "as llama, with norms after both branches, and of queries and keys",
    class: "Olmo2ForCausalLM",
    scalar_class: "Olmo2ForSequenceClassification",
    wide_head_norms: true,
    biases: Biases { mlp: Bias::No, ..LLAMA.biases },
    keys: Keys { head_dim: None, ..LLAMA.keys },
    defaults: Defaults { norm_eps: 1e-5, ..LLAMA.defaults },
    names: Names {
        norm1: None,
        head_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]),
        post1: Some("post_attention_layernorm"),
        norm2: None,
        post2: Some("post_feedforward_layernorm"),
        ..LLAMA.names
    },
    fixed: &[("mlp_bias", OFF), ("sliding_window", &["null"]), ("clip_qkv", &["null"]), WHOLE_HEADS],
    ..LLAMA
};
