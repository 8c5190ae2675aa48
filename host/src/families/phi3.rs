//! Phi-3: Mistral's pieces, in which one matrix holds queries, keys and values, and another gate and up.

use super::family::{Defaults, Family, Names, Windows};
use super::mistral::MISTRAL;

/// RMS norms, rotary positions, a gated feed-forward block, joint projections.
pub const PHI3: Family = Family {
    model_type: "phi3",
    summary: "as llama, without biases, with joint projections",
    class: "Phi3ForCausalLM",
    scalar_class: "Phi3ForSequenceClassification",
    windows: Windows::EveryLayer { default: None },
    defaults: Defaults { context: 4096, norm_eps: 1e-5, ..MISTRAL.defaults },
    names: Names { qkv: &["self_attn.qkv_proj"], up: &["mlp.gate_up_proj"], ..MISTRAL.names },
    unused: &[("attention_dropout", 0.0), ("embd_pdrop", 0.0), ("resid_pdrop", 0.0)],
    ..MISTRAL
};
