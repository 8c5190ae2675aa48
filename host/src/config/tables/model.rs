//! `[model]`: an existing model, or a shape with fresh weights.

use std::ops::Bound::{Excluded, Included, Unbounded};

use serde::Serialize;

use super::lora::{self, Lora};
use crate::families::{
    self,
    family::{Mlp, Positions},
};
use crate::keys::notes::Notes;
use crate::keys::{Form, table};
use crate::model::shape::fresh::Shape;

table! {
    /// the model to train: `from` an existing model, or a shape with fresh weights
    pub struct Written at "model": Form::Table, example { layers = 4, dim = 128, heads = 4, context = 256 } {
        /// a run, a checkpoint, a Hugging Face folder, a GGUF file or a model of the hub (hf:org/name@revision) to start from; of an
        /// adapter its base, with the adapter in model.adapter
        from: String, Form::Text, example "runs/base";
        /// an adapter of model.from that training continues from: a run with model.lora, one of its checkpoints, a folder that PEFT
        /// has written, or an adapter of the hub (hf:org/name); rank, scale and targets are its own
        adapter: String, Form::Text, default "none", example "runs/sft-lora";
        lora in Option<lora::Written>;
        /// family of the decoder
        arch: String, Form::Word(&families::NAMES), default "\"llama\"", example "llama";
        /// decoder layers
        layers: usize, Form::Int(1, 4096), example 4;
        /// width of the residual stream; a multiple of heads
        dim: usize, Form::Int(1, 1 << 20), example 128;
        /// attention heads
        heads: usize, Form::Int(1, 4096), example 4;
        /// key and value heads, in families whose heads can share them; divides heads
        kv_heads: usize, Form::Int(1, 4096), default "the number of heads", example 2;
        /// width inside the feed-forward block
        hidden: usize, Form::Int(1, 1 << 22), default "8/3 dim, rounded up to a multiple of 32, for a gated block (SwiGLU); else 4 dim",
            example 512;
        /// the context length: the longest sequence in tokens
        context: usize, Form::Int(2, 1 << 24), example 256;
        /// rows of the embedding and the head, at least the number of tokens of the tokenizer; more rows, such as the next multiple
        /// of 64, can be faster on some devices
        vocab: usize, Form::Int(1, 1 << 28), default "the number of tokens of the tokenizer", example 50304;
        /// whether the output head shares the weights of the embedding
        tied: bool, Form::Bool, default "that of the family", example false;
        /// epsilon inside the norms
        norm_eps: f64 = 1e-5, Form::Float(Excluded(0.0), Excluded(1.0)), example 1e-5;
        /// base of the rotary frequencies, if positions are rotary
        rope_theta: f64 = 10000.0, Form::Float(Excluded(1.0), Unbounded), example 10000.0;
        /// standard deviation of the initial weights
        init_std: f64 = 0.02, Form::Float(Excluded(0.0), Included(10.0)), example 0.02;
    }
}

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Model {
    /// An existing model.
    From {
        /// A run, a checkpoint or a Hugging Face folder.
        from: String,
        /// An adapter that training continues from.
        #[serde(skip_serializing_if = "Option::is_none")]
        adapter: Option<String>,
        /// A new adapter.
        #[serde(skip_serializing_if = "Option::is_none")]
        lora: Option<Lora>,
    },
    /// Fresh weights.
    Shape(Shape),
}

/// Resolves `[model]`.
pub fn resolve(written: Option<Written>, notes: &mut Notes<'_>) -> Model {
    let Some(written) = written else {
        notes.missing("model", "give from = \"a folder\", or a shape: layers, dim, heads, context");
        return Model::From { from: String::new(), adapter: None, lora: None };
    };
    let Some(from) = written.from.clone() else {
        let why = "an adapter is trained over the weights of an existing model; give model.from, or leave this out";
        notes.unused("model.adapter", &written.adapter, why);
        notes.unused("model.lora", &written.lora, why);
        return Model::Shape(shape(written, notes));
    };
    let why = "model.from already has a shape; remove this key or model.from";
    notes.unused("model.arch", &written.arch, why);
    notes.unused("model.layers", &written.layers, why);
    notes.unused("model.dim", &written.dim, why);
    notes.unused("model.heads", &written.heads, why);
    notes.unused("model.kv_heads", &written.kv_heads, why);
    notes.unused("model.hidden", &written.hidden, why);
    notes.unused("model.context", &written.context, why);
    notes.unused("model.vocab", &written.vocab, why);
    notes.unused("model.tied", &written.tied, why);
    notes.unused("model.norm_eps", &written.norm_eps, why);
    notes.unused("model.rope_theta", &written.rope_theta, why);
    notes.unused("model.init_std", &written.init_std, "model.from already has weights; remove this key or model.from");
    if written.adapter.is_some() {
        let why = "model.adapter has its own rank, scale and targets; remove model.lora, or model.adapter to train a new adapter";
        notes.unused("model.lora", &written.lora, why);
    }
    let lora = written.lora.map(|lora| lora::resolve(lora, notes));
    Model::From { from, adapter: written.adapter, lora }
}

impl Model {
    /// Whether an adapter is trained in place of the weights.
    pub fn has_adapter(&self) -> bool {
        matches!(self, Model::From { adapter, lora, .. } if adapter.is_some() || lora.is_some())
    }
}

fn shape(written: Written, notes: &mut Notes<'_>) -> Shape {
    let mut needed = |key: &str, value: Option<usize>, example: &str| {
        if value.is_none() && !notes.reported("model.from") {
            notes.missing(
                key,
                &format!("a model with fresh weights needs it (for example {example}), or give model.from"),
            );
        }
        value
    };
    let layers = needed("model.layers", written.layers, "layers = 4");
    let dim = needed("model.dim", written.dim, "dim = 128");
    let heads = needed("model.heads", written.heads, "heads = 4");
    let context = needed("model.context", written.context, "context = 256");
    let arch = written.arch.as_deref().and_then(families::find).unwrap_or(families::DEFAULT);
    let rotary = arch.positions == Positions::Rotary;
    if let (Some(dim), Some(heads)) = (dim, heads) {
        if dim % heads != 0 {
            notes.refuse("model.dim", format!("{dim} is not a multiple of heads = {heads}"));
        } else if rotary && (dim / heads) % 2 != 0 {
            let message = format!(
                "dim / heads = {} is odd; rotary positions need an even head width, because they rotate pairs",
                dim / heads
            );
            notes.refuse("model.dim", message);
        }
    }
    if !rotary {
        let why = format!("arch = \"{}\" has learned positions", arch.model_type);
        notes.unused("model.rope_theta", &written.rope_theta, &why);
    }
    let shares_heads = arch.keys.kv_heads.is_some();
    if !shares_heads {
        let why = format!("arch = \"{}\" always has as many key and value heads as attention heads", arch.model_type);
        notes.unused("model.kv_heads", &written.kv_heads, &why);
    } else if let (Some(heads), Some(kv_heads)) = (heads, written.kv_heads)
        && heads % kv_heads != 0
    {
        notes.refuse("model.kv_heads", format!("{kv_heads} does not divide heads = {heads}"));
    }
    let (dim, heads) = (dim.unwrap_or(1), heads.unwrap_or(1));
    let default_hidden = match arch.mlp {
        Mlp::Gated => (8 * dim).div_ceil(3).next_multiple_of(32),
        Mlp::Plain => 4 * dim,
    };
    Shape {
        arch,
        layers: layers.unwrap_or(1),
        dim,
        heads,
        kv_heads: shares_heads.then(|| written.kv_heads.unwrap_or(heads)),
        hidden: written.hidden.unwrap_or(default_hidden),
        context: context.unwrap_or(usize::MAX),
        vocab: written.vocab,
        tied: written.tied.unwrap_or(arch.defaults.tied),
        norm_eps: written.norm_eps(),
        rope_theta: rotary.then(|| written.rope_theta()),
        init_std: written.init_std(),
    }
}
