//! `[model.lora]`: an adapter that is trained in place of the model's weights.

use serde::Serialize;

use crate::keys::notes::Notes;
use crate::keys::{Form, table};
use crate::model::adapter::{ALL_LINEAR, Settings};

table! {
    /// low-rank adapters (LoRA) are trained in place of the weights of model.from, which stay frozen: `y = W x + scale B A x`
    pub struct Written at "model.lora": Form::Table, default "none: all weights are trained",
        example { rank = 16, alpha = 32, targets = ["q_proj", "v_proj"] } {
        /// rows of A and columns of B
        rank: u64, Form::Int(1, 65536), example 16;
        /// scale = alpha / rank
        alpha: f64, Form::POSITIVE, default "the rank, so that the scale is 1", example 32.0;
        /// adapted linear maps, by the ends of their names as in PEFT, such as q_proj, v_proj or down_proj (llama) and c_attn (gpt2);
        /// all-linear: every linear map of the layers
        targets: Vec<String>, Form::Texts, default "\"all-linear\"", example ["q_proj", "v_proj"];
        /// whether scale = alpha / sqrt(rank): rank-stabilised LoRA
        rslora: bool = false, Form::Bool, example true;
        /// must be 0: Telos trains without dropout
        dropout: f64, Form::FROM_ZERO, default "0", example 0.0;
        /// must be false: DoRA rescales every row of the adapted weights, which the operations of backends do not compute
        dora: bool, Form::Bool, default "false", example false;
        /// must be absent: frozen weights of 4 or 8 bits need products that no backend has
        quantize: String, Form::Text, default "none", example "nf4";
    }
}

/// `[model.lora]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lora {
    /// Rows of A and columns of B.
    pub rank: u64,
    /// scale = alpha / rank.
    pub alpha: f64,
    /// Adapted linear maps, by the ends of their names.
    pub targets: Vec<String>,
    /// Whether scale = alpha / sqrt(rank).
    pub rslora: bool,
}

impl Lora {
    /// The adapter's settings.
    pub fn settings(&self) -> Settings {
        let Lora { rank, alpha, targets, rslora } = self.clone();
        Settings { rank, alpha, targets, rslora }
    }
}

/// Resolves `[model.lora]`.
pub fn resolve(written: Written, notes: &mut Notes<'_>) -> Lora {
    let rslora = written.rslora();
    if written.rank.is_none() {
        notes.missing("model.lora.rank", "the rank has no default; for example rank = 16");
    }
    if written.dropout.is_some_and(|dropout| dropout != 0.0) {
        let why = "not implemented: Telos trains without dropout; leave it out, or lower the rank to regularise";
        notes.refuse("model.lora.dropout", why);
    }
    if written.dora == Some(true) {
        let why = "not implemented: DoRA rescales every row of the adapted weights, which the operations of backends do not compute; \
                   leave it out";
        notes.refuse("model.lora.dora", why);
    }
    if let Some(kind) = &written.quantize {
        let why = format!(
            "not implemented: no backend multiplies with weights stored as \"{kind}\"; leave it out, and set backend.dtype = \"bf16\" to \
             halve the frozen weights"
        );
        notes.refuse("model.lora.quantize", why);
    }
    let rank = written.rank.unwrap_or(1);
    let targets = written.targets.unwrap_or_else(|| vec![ALL_LINEAR.to_owned()]);
    if targets.len() > 1 && targets.iter().any(|target| target == ALL_LINEAR) {
        notes.refuse("model.lora.targets", format!("\"{ALL_LINEAR}\" names all linear maps already; give it alone"));
    }
    Lora { rank, alpha: written.alpha.unwrap_or(rank as f64), targets, rslora }
}
