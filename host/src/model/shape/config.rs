//! A decoder's shape and the rules between its values. `config_json` reads and writes it as a file.

use plugin_api::backend::ops::{ActivationKind, MaskKind};
use plugin_api::manifest::AttentionMask;

use serde_json::{Map, Value};

use super::fresh::Shape;
use super::rope::{Rope, Ropes};
use super::rope_json;
use super::windows;
use crate::data::Source;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::families::family::{Bias, Positions, Residual};

/// File name inside a model folder.
pub const CONFIG_FILE: &str = "config.json";

/// The shape of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub family: &'static Family,
    /// Decoder layers.
    pub layers: u64,
    /// Width of the residual stream.
    pub dim: u64,
    /// Query heads.
    pub heads: u64,
    /// Key-value heads; divides `heads`.
    pub kv_heads: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// Feed-forward width.
    pub hidden: u64,
    /// Number of token ids.
    pub vocab: u64,
    /// Longest sequence in tokens.
    pub context: u64,
    /// Epsilon inside the norms.
    pub norm_eps: f64,
    /// Activation of the feed-forward block, by its Hugging Face name.
    pub activation: String,
    /// The rotary positions; not used with learned ones.
    pub ropes: Ropes,
    /// Attention's scores are divided by the square root of this; absent: of the width of a head.
    pub score_scale: Option<f64>,
    /// Soft cap of attention's scores; 0: none.
    pub score_cap: f64,
    /// Soft cap of the logits; 0: none.
    pub logit_cap: f64,
    /// Whether both branches of a layer read its input, and their sum is added to it.
    pub parallel: bool,
    /// How many tokens a token attends to in each layer, itself included; 0: no limit. Empty if no layer has a limit.
    pub windows: Vec<u64>,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Its outputs.
    pub outputs: Outputs,
    /// Mean and standard deviation of the scalar head's scores on held-out answers, if they were measured.
    pub scores: Option<(f64, f64)>,
    /// What separates the segments that the scalar head scores, if the model was trained as a process reward model: an objective
    /// read `token_score`. Absent for other reward models, which score whole answers.
    pub segment_separator: Option<String>,
    /// Which tokens of its sequence a token attends to.
    pub attention: AttentionMask,
    /// Whether the projections to queries, keys and values have biases.
    pub attention_bias: bool,
    /// Whether attention's output projection has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward block's projections have biases.
    pub mlp_bias: bool,
    /// Standard deviation of initial weights.
    pub init_std: f64,
    /// Id that starts a sequence.
    pub bos: Option<u32>,
    /// Ids that end an answer: those that `config.json` names, then those of `generation_config.json`. All are in the
    /// vocabulary.
    pub eos: Vec<u32>,
    /// Id used for padding by other programs; Telos packs sequences and never reads it.
    pub pad: Option<u32>,
    /// The text of `generation_config.json` if the folder has one; it is saved unchanged.
    pub generation: Option<String>,
    /// The keys of the `config.json` that was read; those that Telos does not write itself are saved unchanged.
    pub original: Map<String, Value>,
    /// Notes for the user about keys that were read and have no effect here.
    pub notes: Vec<String>,
    /// The files that it was read from, by name; empty if it was built from a shape.
    pub files: Vec<Source>,
}

/// What a decoder computes from its last hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outputs {
    /// Log-probabilities of the next token: a language model.
    pub tokens: bool,
    /// One number per position: a reward model or a critic.
    pub scalar: bool,
}

impl Outputs {
    /// A language model.
    pub const TOKENS: Outputs = Outputs { tokens: true, scalar: false };
    /// A reward model or a separate critic.
    pub const SCALAR: Outputs = Outputs { tokens: false, scalar: true };
    /// A policy that shares its trunk with the critic.
    pub const BOTH: Outputs = Outputs { tokens: true, scalar: true };
}

/// Activations by their Hugging Face names.
const ACTIVATIONS: &[(&str, ActivationKind)] = &[
    ("gelu_new", ActivationKind::GELU_TANH),
    ("gelu_pytorch_tanh", ActivationKind::GELU_TANH),
    ("gelu", ActivationKind::GELU_ERF),
    ("silu", ActivationKind::SILU),
    ("swish", ActivationKind::SILU),
    ("relu", ActivationKind::RELU),
];

impl ModelConfig {
    /// Returns the config of a shape with fresh weights over `vocab` token ids.
    ///
    /// # Errors
    /// A request error for a shape that contradicts itself.
    pub fn from_shape(shape: &Shape, vocab: usize) -> Result<ModelConfig> {
        let family = shape.arch;
        let [attention_bias, output_bias, mlp_bias] = family.biases.all().map(|bias| match bias {
            Bias::Yes => true,
            Bias::No => false,
            Bias::Key(_, default) => default,
        });
        if shape.heads == 0 || !shape.dim.is_multiple_of(shape.heads) {
            return Err(Error::request(format!(
                "[model]: dim {} is not a multiple of {} heads",
                shape.dim, shape.heads
            )));
        }
        let head_dim = (shape.dim / shape.heads) as u64;
        let theta = shape.rope_theta.unwrap_or(10_000.0);
        let config = ModelConfig {
            family,
            layers: shape.layers as u64,
            dim: shape.dim as u64,
            heads: shape.heads as u64,
            kv_heads: shape.kv_heads() as u64,
            head_dim,
            hidden: shape.hidden as u64,
            vocab: vocab as u64,
            context: shape.context as u64,
            norm_eps: shape.norm_eps,
            activation: family.defaults.activation.to_owned(),
            ropes: Ropes {
                all: Rope { share: family.rope.share.map_or(1.0, |(_, share)| share), ..Rope::new(theta) },
                local: family.rope.local.map(|(_, theta)| Rope::new(theta)),
                rotated: rope_json::absent_layers(&family.rope, shape.layers as u64),
            },
            score_scale: family.scores.map(|_| head_dim as f64),
            score_cap: family.scores.and_then(|scores| scores.cap.1).unwrap_or(0.0),
            logit_cap: family.scores.and_then(|scores| scores.logit_cap.1).unwrap_or(0.0),
            parallel: family.residual == Residual::Configured { default: true },
            windows: windows::fresh(family.windows, shape.layers as u64),
            tied: shape.tied,
            outputs: Outputs::TOKENS,
            scores: None,
            segment_separator: None,
            attention: AttentionMask::CAUSAL,
            attention_bias,
            output_bias,
            mlp_bias,
            init_std: shape.init_std,
            bos: None,
            eos: Vec::new(),
            pad: None,
            generation: None,
            original: Map::new(),
            notes: Vec::new(),
            files: Vec::new(),
        };
        config.check().map_err(|what| Error::request(format!("[model]: {what}")))?;
        Ok(config)
    }

    /// Checks the rules between the values.
    pub(super) fn check(&self) -> Result<(), String> {
        let sizes = [
            ("layers", self.layers, 4096),
            ("width", self.dim, 1 << 20),
            ("heads", self.heads, 4096),
            ("key-value heads", self.kv_heads, 4096),
            ("head width", self.head_dim, 1 << 16),
            ("feed-forward width", self.hidden, 1 << 22),
            ("vocabulary", self.vocab, 1 << 28),
            ("context", self.context, 1 << 28),
        ];
        for (what, size, most) in sizes {
            if size == 0 || size > most {
                return Err(format!("{what} is {size}, expected 1 to {most}"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} heads cannot share {} key-value heads evenly", self.heads, self.kv_heads));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return Err(format!("norm epsilon is {}, expected a number above 0 and below 1", self.norm_eps));
        }
        if self.family.positions == Positions::Rotary {
            for rope in [&self.ropes.all].into_iter().chain(&self.ropes.local) {
                rope.check(self.head_dim)?;
            }
        }
        if let Some(scale) = self.score_scale.filter(|scale| !(*scale > 0.0 && scale.is_finite())) {
            return Err(format!("the divisor of attention's scores is {scale}, expected a number above 0"));
        }
        if !(self.init_std >= 0.0 && self.init_std.is_finite()) {
            return Err(format!("initializer_range is {}, expected a number from 0", self.init_std));
        }
        Ok(())
    }

    /// The activation function.
    ///
    /// # Errors
    /// A request error for an activation that is not implemented.
    pub fn activation_kind(&self) -> Result<ActivationKind> {
        activation_kind(&self.activation).ok_or_else(|| {
            Error::request(format!("activation {:?} is not implemented", self.activation))
                .with_hint(known_activations())
        })
    }

    /// Which keys a query attends to.
    pub(in crate::model) fn mask(&self) -> MaskKind {
        match &self.attention {
            mask if *mask == AttentionMask::PREFIX => MaskKind::PREFIX,
            mask if *mask == AttentionMask::BIDIRECTIONAL => MaskKind::BIDIRECTIONAL,
            _ => MaskKind::CAUSAL,
        }
    }

    /// How many tokens a token attends to in a layer, itself included; 0: no limit.
    pub(in crate::model) fn window(&self, layer: usize) -> i64 {
        self.windows.get(layer).map_or(0, |window| i64::try_from(*window).unwrap_or(i64::MAX))
    }

    /// The rotary positions of a layer, if it rotates queries and keys.
    pub(in crate::model) fn rope(&self, layer: usize) -> Option<&Rope> {
        let Ropes { all, local, rotated } = &self.ropes;
        let rotates = self.family.positions == Positions::Rotary && rotated.get(layer).copied().unwrap_or(true);
        rotates.then(|| local.as_ref().filter(|_| self.window(layer) > 0).unwrap_or(all))
    }

    /// Whether it can continue a text: a token does not depend on those after it.
    pub fn continues_texts(&self) -> bool {
        self.attention != AttentionMask::BIDIRECTIONAL
    }

    /// Width of all query heads.
    pub fn query_width(&self) -> u64 {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    pub fn kv_width(&self) -> u64 {
        self.kv_heads * self.head_dim
    }

    /// Factor of the attention's scores.
    pub fn attention_scale(&self) -> f64 {
        self.score_scale.unwrap_or(self.head_dim as f64).sqrt().recip()
    }
}

pub(super) fn activation_kind(name: &str) -> Option<ActivationKind> {
    ACTIVATIONS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

pub(super) fn known_activations() -> String {
    let names: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
    format!("implemented are {}", names.join(", "))
}
