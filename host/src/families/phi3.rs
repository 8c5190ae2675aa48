//! Phi-3: Mistral's pieces, in which one matrix holds queries, keys and values, and another gate and up.

use super::family::{Defaults, Family, Names, OFF, ROPE, RopeKeys, Windows};
use super::mistral::MISTRAL;

/// RMS norms, rotary positions, a gated feed-forward block, joint projections.
pub const PHI3: Family = Family {
    model_type: "phi3",
    summary: "as llama, without biases, with joint projections",
    class: "Phi3ForCausalLM",
    scalar_class: "Phi3ForSequenceClassification",
    windows: Windows::EveryLayer { default: None },
    rope: RopeKeys {
        share: Some(("partial_rotary_factor", 1.0)),
        scalings: &["default", "longrope", "su"],
        original: Some(4096),
        ..ROPE
    },
    defaults: Defaults { kv_heads: None, context: 4096, norm_eps: 1e-5, ..MISTRAL.defaults },
    fixed: &[("attention_bias", OFF), ("mlp_bias", OFF)],
    names: Names { qkv: &["self_attn.qkv_proj"], up: &["mlp.gate_up_proj"], ..MISTRAL.names },
    unused: &[("attention_dropout", 0.0), ("embd_pdrop", 0.0), ("resid_pdrop", 0.0)],
    ..MISTRAL
};
