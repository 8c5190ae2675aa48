//! Qwen 3: Qwen 2's pieces without biases, with a norm of each head of queries and keys.

use super::family::{Biases, Family, Names};
use super::qwen2::QWEN2;

/// RMS norms, also of queries and keys, rotary positions, a gated feed-forward block.
pub const QWEN3: Family = Family {
    model_type: "qwen3",
    summary: "as llama, with norms of queries and keys",
    class: "Qwen3ForCausalLM",
    scalar_class: "Qwen3ForSequenceClassification",
    biases: Biases::Configured,
    names: Names { head_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]), ..QWEN2.names },
    ..QWEN2
};
