//! SmolLM 3: Llama's pieces, with layers that do not rotate queries and keys.

use super::family::{Defaults, Family, ROPE, RopeKeys, WHOLE_HEADS, Windows};
use super::llama::LLAMA;

/// RMS norms, rotary positions in three of four layers, a gated feed-forward block.
pub const SMOLLM3: Family = Family {
    model_type: "smollm3",
    summary: "as llama, without rotary positions in every fourth layer",
    class: "SmolLM3ForCausalLM",
    scalar_class: "SmolLM3ForSequenceClassification",
    windows: Windows::Unrotated,
    rope: RopeKeys { theta: ("rope_theta", 2_000_000.0), skips_layers: true, ..ROPE },
    defaults: Defaults { kv_heads: Some(4), context: 32_768, tied: true, ..LLAMA.defaults },
    fixed: &[WHOLE_HEADS],
    ..LLAMA
};
