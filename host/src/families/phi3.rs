//! Phi-3: Llama's pieces without biases, in which one matrix holds queries, keys and values, and another gate and up.

use super::family::{Biases, Defaults, Family, Names, OFF, Windows};
use super::llama::LLAMA;

/// RMS norms, rotary positions, a gated feed-forward block, joint projections.
pub const PHI3: Family = Family {
    model_type: "phi3",
    summary: "as llama, without biases, with joint projections",
    class: "Phi3ForCausalLM",
    scalar_class: "Phi3ForSequenceClassification",
    biases: Biases::Never,
    windows: Windows::EveryLayer { default: None },
    defaults: Defaults { context: 4096, norm_eps: 1e-5, ..LLAMA.defaults },
    names: Names { qkv: &["self_attn.qkv_proj"], up: &["mlp.gate_up_proj"], ..LLAMA.names },
    fixed: &[
        ("attention_bias", OFF),
        ("mlp_bias", OFF),
        ("partial_rotary_factor", &["null", "1.0", "1"]),
        ("quantization_config", &["null"]),
        ("is_encoder_decoder", OFF),
        ("is_causal", &["null", "true"]),
    ],
    unused: &[("attention_dropout", 0.0), ("embd_pdrop", 0.0), ("resid_pdrop", 0.0)],
    ..LLAMA
};
