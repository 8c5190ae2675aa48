//! GPT-2.

use plugin_api::backend::ops::NormKind;

use super::family::{Biases, Defaults, Family, Keys, Mlp, Names, OFF, Positions, Windows};

/// Layer norms, learned positions, a plain feed-forward block, biases everywhere.
pub const GPT2: Family = Family {
    model_type: "gpt2",
    summary: "layer norm, learned positions, GELU, biases",
    class: "GPT2LMHeadModel",
    scalar_class: "GPT2ForSequenceClassification",
    norm: NormKind::LAYER,
    norm_bias: true,
    positions: Positions::Learned,
    mlp: Mlp::Plain,
    biases: Biases::Always,
    windows: Windows::Never,
    stored_transposed: true,
    keys: Keys {
        layers: "n_layer",
        dim: "n_embd",
        heads: "n_head",
        kv_heads: None,
        head_dim: None,
        hidden: "n_inner",
        context: "n_positions",
        norm_eps: "layer_norm_epsilon",
        activation: "activation_function",
    },
    defaults: Defaults { context: 1024, norm_eps: 1e-5, activation: "gelu_new", tied: true, hidden_factor: Some(4) },
    names: Names {
        prefix: "transformer.",
        embedding: "wte",
        positions: Some("wpe"),
        layer: "h.",
        norm1: "ln_1",
        qkv: &["attn.c_attn"],
        head_norms: None,
        output: "attn.c_proj",
        norm2: "ln_2",
        up: &["mlp.c_fc"],
        down: "mlp.c_proj",
        norm: "ln_f",
        head: "lm_head",
        ignored: &[".attn.bias", ".attn.masked_bias"],
    },
    fixed: &[
        ("scale_attn_weights", &["null", "true"]),
        ("scale_attn_by_inverse_layer_idx", OFF),
        ("add_cross_attention", OFF),
        ("quantization_config", &["null"]),
        ("is_encoder_decoder", OFF),
    ],
    unused: &[("attn_pdrop", 0.0), ("embd_pdrop", 0.0), ("resid_pdrop", 0.0)],
};
