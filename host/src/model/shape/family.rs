//! The families of decoders as data: one row per family, read by config, layout and decoder.
//!
//! A new family made of existing pieces is a new row; a new kind of piece is a new value of one of the enums here and one place
//! in the decoder that computes it.

use plugin_api::backend::ops::NormKind;

/// Where a token's position is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// Queries and keys are rotated by it, in pairs (i, i + width / 2).
    Rotary,
    /// A learned row is added to the embedding.
    Learned,
}

/// The feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mlp {
    /// `down(f(gate x) * up x)`.
    Gated,
    /// `down(f(up x))`.
    Plain,
}

/// Whether linear layers have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Biases {
    /// All of them.
    Always,
    /// As set by `attention_bias` and `mlp_bias`.
    Configured,
}

/// A family of decoders.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// `model_type` of config.json.
    pub model_type: &'static str,
    /// The `architectures` class of language models of this family.
    pub class: &'static str,
    /// The `architectures` class with a scalar head in place of the language-model head.
    pub scalar_class: &'static str,
    /// Kind of all norms.
    pub norm: NormKind,
    /// Whether norms have a shift.
    pub norm_bias: bool,
    /// How positions are added.
    pub positions: Positions,
    /// The feed-forward block.
    pub mlp: Mlp,
    /// Biases of linear layers.
    pub biases: Biases,
    /// Matrices are stored as (in, out): transposed on load and save.
    pub stored_transposed: bool,
    /// Keys of config.json.
    pub keys: Keys,
    /// Values of absent keys.
    pub defaults: Defaults,
    /// Names of tensors.
    pub names: Names,
    /// Keys of config.json that would change the function and are not implemented, with the JSON texts that do not change it.
    pub fixed: &'static [(&'static str, &'static [&'static str])],
    /// Keys that only concern regularisation in training, with the value that Telos trains with.
    pub unused: &'static [(&'static str, f64)],
}

/// Keys of config.json that differ between families.
#[derive(Debug, PartialEq)]
pub struct Keys {
    /// Decoder layers.
    pub layers: &'static str,
    /// Width of the residual stream.
    pub dim: &'static str,
    /// Query heads.
    pub heads: &'static str,
    /// Key-value heads; `None`: as many as query heads.
    pub kv_heads: Option<&'static str>,
    /// Width of a head; `None`: width / heads.
    pub head_dim: Option<&'static str>,
    /// Feed-forward width.
    pub hidden: &'static str,
    /// Longest sequence.
    pub context: &'static str,
    /// Norm epsilon.
    pub norm_eps: &'static str,
    /// Activation function.
    pub activation: &'static str,
}

/// What the family's own code assumes for absent keys of config.json.
#[derive(Debug, PartialEq)]
pub struct Defaults {
    /// Longest sequence.
    pub context: u64,
    /// Norm epsilon.
    pub norm_eps: f64,
    /// Activation function.
    pub activation: &'static str,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Feed-forward width as a multiple of the model's, if the key is null or absent; `None`: the key is required.
    pub hidden_factor: Option<u64>,
}

/// Tensor names without `.weight` and `.bias`. A layer's names follow `prefix` + `layer` + its number + `.`.
#[derive(Debug, PartialEq)]
pub struct Names {
    /// Prefix of all names except the head's; files may omit it.
    pub prefix: &'static str,
    /// Token embedding.
    pub embedding: &'static str,
    /// Learned positions.
    pub positions: Option<&'static str>,
    /// Start of a layer's names.
    pub layer: &'static str,
    /// Norm before attention.
    pub norm1: &'static str,
    /// Query, key and value projections in this order, or one projection for all three.
    pub qkv: &'static [&'static str],
    /// Attention's output projection.
    pub output: &'static str,
    /// Norm before the feed-forward block.
    pub norm2: &'static str,
    /// The block's first projections: gate and up, or a single one.
    pub up: &'static [&'static str],
    /// The block's last projection.
    pub down: &'static str,
    /// Norm after the last layer.
    pub norm: &'static str,
    /// Untied head.
    pub head: &'static str,
    /// Endings of tensor names in files that are not parameters.
    pub ignored: &'static [&'static str],
}

/// Every family.
pub static FAMILIES: &[Family] = &[LLAMA, GPT2];

const OFF: &[&str] = &["null", "false"];

const LLAMA: Family = Family {
    model_type: "llama",
    class: "LlamaForCausalLM",
    scalar_class: "LlamaForSequenceClassification",
    norm: NormKind::RMS,
    norm_bias: false,
    positions: Positions::Rotary,
    mlp: Mlp::Gated,
    biases: Biases::Configured,
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
    ],
    unused: &[("attention_dropout", 0.0)],
};

const GPT2: Family = Family {
    model_type: "gpt2",
    class: "GPT2LMHeadModel",
    scalar_class: "GPT2ForSequenceClassification",
    norm: NormKind::LAYER,
    norm_bias: true,
    positions: Positions::Learned,
    mlp: Mlp::Plain,
    biases: Biases::Always,
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

/// Returns the family of a `model_type`.
pub fn family(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.model_type == model_type)
}
