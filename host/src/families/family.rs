//! The fields of a family: its pieces, the keys of its config.json, the names of its tensors.

use plugin_api::backend::ops::NormKind;
use serde::{Serialize, Serializer};

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

/// Whether a linear layer has a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// Always.
    Yes,
    /// Never.
    No,
    /// As set by a key of config.json; the value if it is absent.
    Key(&'static str, bool),
}

/// Which linear layers have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// The projections to queries, keys and values.
    pub qkv: Bias,
    /// Attention's output projection.
    pub output: Bias,
    /// The feed-forward block's projections.
    pub mlp: Bias,
}

impl Biases {
    /// All linear layers have one.
    pub const ALWAYS: Biases = Biases { qkv: Bias::Yes, output: Bias::Yes, mlp: Bias::Yes };
    /// No linear layer has one.
    pub const NEVER: Biases = Biases { qkv: Bias::No, output: Bias::No, mlp: Bias::No };

    /// The three of them, with their keys.
    pub fn all(&self) -> [Bias; 3] {
        [self.qkv, self.output, self.mlp]
    }
}

/// In which layers a token attends only to a window of the tokens before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// In none.
    Never,
    /// In every layer, of `sliding_window` tokens; null means that there is none.
    EveryLayer {
        /// The window if the key is absent.
        default: Option<u64>,
    },
    /// Where `use_sliding_window` is true: in the layers that `layer_types` calls "sliding_attention"; without that key in all but the
    /// first `max_window_layers`.
    Switched {
        /// The window if the key is absent.
        default: u64,
        /// `max_window_layers` if the key is absent.
        full_layers: u64,
    },
    /// Where `use_sliding_window` is true: in the layers that `layer_types` calls "sliding_attention"; without that key in those whose
    /// queries and keys are not rotated.
    Unrotated,
    /// In the layers that `layer_types` calls "sliding_attention"; without that key in all but each `period`-th layer.
    Alternating {
        /// The window if the key is absent.
        default: u64,
        /// Distance of two layers without a window.
        period: u64,
        /// Key of the period, if there is one.
        period_key: Option<&'static str>,
    },
}

/// How branches join the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// The feed-forward block reads the stream after attention.
    Sequential,
    /// Both branches read the layer's input, and their sum is added to it, where the key `use_parallel_residual` is true.
    Configured {
        /// The key's value if it is absent.
        default: bool,
    },
}

/// Keys of rotary positions in config.json, and their values if they are absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeKeys {
    /// Base of the frequencies, outside of `rope_parameters`.
    pub theta: (&'static str, f64),
    /// Share of each head that is rotated, outside of `rope_parameters`; `None`: all of it.
    pub share: Option<(&'static str, f64)>,
    /// Base of the frequencies in the layers with a window, if they have their own.
    pub local: Option<(&'static str, f64)>,
    /// Words for the implemented types of scaling.
    pub scalings: &'static [&'static str],
    /// The context length before scaling if `original_max_position_embeddings` is absent; `None`: that of `rope_parameters`, and
    /// otherwise the context length.
    pub original: Option<u64>,
    /// Whether `no_rope_layers` names layers that are not rotated; without it, each layer whose number is a multiple of
    /// `no_rope_layer_interval` (4 if absent).
    pub skips_layers: bool,
}

/// Numbers of attention and head that only some families have: keys of config.json, and their values if they are absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Scores are divided by the square root of this, instead of that of the width of a head.
    pub scale: (&'static str, f64),
    /// Soft cap of the scores; `None`: there is none.
    pub cap: (&'static str, Option<f64>),
    /// Soft cap of the logits; `None`: there is none.
    pub logit_cap: (&'static str, Option<f64>),
}

/// A family of decoders.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// `model_type` of config.json, and the word for it in an experiment (`model.arch`).
    pub model_type: &'static str,
    /// Its pieces in words, for help.
    pub summary: &'static str,
    /// The `architectures` class of language models of this family.
    pub class: &'static str,
    /// The `architectures` class with a scalar head in place of the language-model head.
    pub scalar_class: &'static str,
    /// Kind of all norms.
    pub norm: NormKind,
    /// Whether norms have a shift.
    pub norm_bias: bool,
    /// Added to the stored gains of norms.
    pub norm_offset: f64,
    /// Whether norms of queries and keys cover all heads together, instead of each head.
    pub wide_head_norms: bool,
    /// Whether embeddings are multiplied by the square root of their width.
    pub scaled_embedding: bool,
    /// How branches join the residual stream.
    pub residual: Residual,
    /// Scale and caps of scores and logits, if config.json has them.
    pub scores: Option<Scores>,
    /// How positions are added.
    pub positions: Positions,
    /// The feed-forward block.
    pub mlp: Mlp,
    /// Biases of linear layers.
    pub biases: Biases,
    /// In which layers attention has a window.
    pub windows: Windows,
    /// Keys of rotary positions; not used with learned ones.
    pub rope: RopeKeys,
    /// Matrices are stored as (in, out): transposed on load and save.
    pub stored_transposed: bool,
    /// The joint projection of queries, keys and values is stored head by head: query, key and value of the first head, then those of
    /// the second one. Reordered on load and save.
    pub stored_by_head: bool,
    /// Keys of config.json.
    pub keys: Keys,
    /// Values of absent keys.
    pub defaults: Defaults,
    /// Names of tensors.
    pub names: Names,
    /// Keys of config.json that would change the function and are not implemented, with the JSON texts that do not change it; besides
    /// [`FIXED`].
    pub fixed: &'static [(&'static str, &'static [&'static str])],
    /// Keys that only concern regularisation in training, with the value that Telos trains with.
    pub unused: &'static [(&'static str, f64)],
}

/// A family is written as its `model_type`.
impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.model_type)
    }
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
    /// Key-value heads, as many as query heads if the key is null; `None`: always as many.
    pub kv_heads: Option<&'static str>,
    /// Width of a head, width / heads if the key is null; `None`: always width / heads.
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
    /// Key-value heads; `None`: as many as query heads.
    pub kv_heads: Option<u64>,
    /// Width of a head; `None`: width / heads.
    pub head_dim: Option<u64>,
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
    pub norm1: Option<&'static str>,
    /// Query, key and value projections in this order, or one projection for all three.
    pub qkv: &'static [&'static str],
    /// Norms of the heads of queries and of keys, before they are rotated.
    pub head_norms: Option<[&'static str; 2]>,
    /// Attention's output projection.
    pub output: &'static str,
    /// Norm of attention's output, before it is added to the stream.
    pub post1: Option<&'static str>,
    /// Norm before the feed-forward block.
    pub norm2: Option<&'static str>,
    /// The block's first projections: gate and up, one for both, or a single one.
    pub up: &'static [&'static str],
    /// The block's last projection.
    pub down: &'static str,
    /// Norm of the block's output, before it is added to the stream.
    pub post2: Option<&'static str>,
    /// Norm after the last layer.
    pub norm: &'static str,
    /// Untied head.
    pub head: &'static str,
    /// Another name of the untied head in files.
    pub head_alias: Option<&'static str>,
    /// Endings of tensor names in files that are not parameters.
    pub ignored: &'static [&'static str],
}

/// Texts of a flag's values that switch it off, for [`Family::fixed`].
pub const OFF: &[&str] = &["null", "false"];

/// [`Family::fixed`] of every family.
pub const FIXED: &[(&str, &[&str])] =
    &[("quantization_config", &["null"]), ("is_encoder_decoder", OFF), ("is_causal", &["null", "true"])];

/// An entry of [`Family::fixed`]: whole heads are rotated.
pub const WHOLE_HEADS: (&str, &[&str]) = ("partial_rotary_factor", &["null", "1.0", "1"]);

/// Keys of rotary positions of most families.
pub const ROPE: RopeKeys = RopeKeys {
    theta: ("rope_theta", 10_000.0),
    share: None,
    local: None,
    scalings: &["default", "linear", "dynamic", "yarn", "llama3"],
    original: None,
    skips_layers: false,
};
