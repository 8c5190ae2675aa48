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

/// Whether linear layers have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Biases {
    /// All of them.
    Always,
    /// As set by `attention_bias` and `mlp_bias`.
    Configured,
    /// Those of queries, keys and values.
    QueriesKeysValues,
    /// None.
    Never,
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
    /// How positions are added.
    pub positions: Positions,
    /// The feed-forward block.
    pub mlp: Mlp,
    /// Biases of linear layers.
    pub biases: Biases,
    /// In which layers attention has a window.
    pub windows: Windows,
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
    /// Norms of each head of queries and of keys, before they are rotated.
    pub head_norms: Option<[&'static str; 2]>,
    /// Attention's output projection.
    pub output: &'static str,
    /// Norm before the feed-forward block.
    pub norm2: &'static str,
    /// The block's first projections: gate and up, one for both, or a single one.
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

/// Texts of a flag's values that switch it off, for [`Family::fixed`].
pub const OFF: &[&str] = &["null", "false"];
