//! Llama: the models whose `model_type` is "llama", by any maker.

use plugin_api::backend::ops::NormKind;

use super::family::{Biases, Defaults, Family, Keys, Mlp, Names, OFF, Positions, Windows};

/// RMS norms, rotary positions, a gated feed-forward block.
pub const LLAMA: Family = Family {
    model_type: "llama",
    summary: "RMS norm, rotary positions, SwiGLU",
    class: "LlamaForCausalLM",
    scalar_class: "LlamaForSequenceClassification",
    norm: NormKind::RMS,
    norm_bias: false,
    positions: Positions::Rotary,
    mlp: Mlp::Gated,
    biases: Biases::Configured,
    windows: Windows::Never,
    stored_transposed: false,
    keys: Keys {
        layers: "num_hidden_layers",
        dim: "hidden_size",
        heads: "num_attention_heads",
        kv_heads: Some("num_key_value_heads"),
        head_dim: Some("head_dim"),
        hidden: "intermediate_size",
        context: "max_position_embeddings",
        norm_eps: "rms_norm_eps",
        activation: "hidden_act",
    },
    defaults: Defaults { context: 2048, norm_eps: 1e-6, activation: "silu", tied: false, hidden_factor: None },
    names: Names {
        prefix: "model.",
        embedding: "embed_tokens",
        positions: None,
        layer: "layers.",
        norm1: "input_layernorm",
        qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        head_norms: None,
        output: "self_attn.o_proj",
        norm2: "post_attention_layernorm",
        up: &["mlp.gate_proj", "mlp.up_proj"],
        down: "mlp.down_proj",
        norm: "norm",
        head: "lm_head",
        ignored: &["rotary_emb.inv_freq"],
    },
    fixed: &[
        ("sliding_window", &["null"]),
        ("use_sliding_window", OFF),
        ("partial_rotary_factor", &["null", "1.0", "1"]),
        ("pretraining_tp", &["null", "1"]),
        ("quantization_config", &["null"]),
        ("attn_logit_softcapping", &["null"]),
        ("final_logit_softcapping", &["null"]),
        ("is_encoder_decoder", OFF),
        ("is_causal", &["null", "true"]),
    ],
    unused: &[("attention_dropout", 0.0)],
};
