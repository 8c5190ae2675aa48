//! Gemma 2 and 3 (their text models): Llama's pieces with norms before and after both branches, scaled embeddings, and windows in
//! some layers.

use super::family::{Bias, Biases, Defaults, Family, Keys, Names, OFF, ROPE, RopeKeys, Scores, WHOLE_HEADS, Windows};
use super::llama::LLAMA;

/// RMS norms that store their gain minus 1, rotary positions, a gated feed-forward block with GELU, scaled embeddings.
pub const GEMMA2: Family = Family {
    model_type: "gemma2",
    summary: "as llama, with norms around both branches, soft caps, a window in every other layer",
    class: "Gemma2ForCausalLM",
    scalar_class: "Gemma2ForSequenceClassification",
    norm_offset: 1.0,
    scaled_embedding: true,
    biases: Biases { mlp: Bias::No, ..LLAMA.biases },
    scores: Some(Scores {
        scale: ("query_pre_attn_scalar", 256.0),
        cap: ("attn_logit_softcapping", Some(50.0)),
        logit_cap: ("final_logit_softcapping", Some(30.0)),
    }),
    windows: Windows::Alternating { default: 4096, period: 2, period_key: None },
    keys: Keys { activation: "hidden_activation", ..LLAMA.keys },
    defaults: Defaults {
        kv_heads: Some(4),
        head_dim: Some(256),
        context: 8192,
        activation: "gelu_pytorch_tanh",
        tied: true,
        ..LLAMA.defaults
    },
    names: Names {
        post1: Some("post_attention_layernorm"),
        norm2: Some("pre_feedforward_layernorm"),
        post2: Some("post_feedforward_layernorm"),
        ..LLAMA.names
    },
    fixed: &[("mlp_bias", OFF), ("use_bidirectional_attention", OFF), WHOLE_HEADS],
    ..LLAMA
};

/// As Gemma 2, with norms of queries and keys in place of caps, and five layers with a window for each one without.
pub const GEMMA3: Family = Family {
    model_type: "gemma3_text",
    summary: "as gemma2, with norms of queries and keys in place of soft caps",
    class: "Gemma3ForCausalLM",
    scalar_class: "Gemma3TextForSequenceClassification",
    scores: Some(Scores {
        scale: ("query_pre_attn_scalar", 256.0),
        cap: ("attn_logit_softcapping", None),
        logit_cap: ("final_logit_softcapping", None),
    }),
    windows: Windows::Alternating { default: 4096, period: 6, period_key: Some("sliding_window_pattern") },
    rope: RopeKeys { theta: ("rope_theta", 1_000_000.0), local: Some(("rope_local_base_freq", 10_000.0)), ..ROPE },
    defaults: Defaults { context: 131_072, ..GEMMA2.defaults },
    names: Names { head_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]), ..GEMMA2.names },
    ..GEMMA2
};
