//! `[train.optimizer]`: which optimizer, and its settings.

use serde::Serialize;

use super::length::Length;
use crate::keys::notes::Notes;
use crate::keys::{Form, table, words};

table! {
    /// AdamW, or Muon for the layers' matrices
    pub struct Written at "train.optimizer": Form::Table, example { lr = 3e-4 } {
        /// muon orthogonalises the momentum of the layers' matrices and leaves the rest to AdamW, at the same
        /// learning rate
        kind: OptimizerKind, Form::Word(OptimizerKind::WORDS), default "\"adamw\"", example "muon";
        /// peak learning rate
        lr: f64, Form::POSITIVE, example 3e-4;
        /// decay of the first and second moment; the first is muon's momentum
        betas: [f64; 2], Form::Betas, default "[0.9, 0.95], of muon [0.95, 0.95]", example [0.9, 0.95];
        /// epsilon in the denominator
        eps: f64 = 1e-8, Form::POSITIVE, example 1e-8;
        /// decoupled decay of matrices, times the learning rate
        weight_decay: f64 = 0.0, Form::FROM_ZERO, example 0.1;
        /// largest global gradient norm; 0 turns clipping off
        clip: f64 = 1.0, Form::FROM_ZERO, example 1.0;
        groups in Vec<WrittenGroup>;
    }
}

table! {
    /// parameters with their own rate or decay; the first match counts
    pub struct WrittenGroup at "train.optimizer.groups": Form::Tables, default "[]",
        example [{ match = "*embed*", lr_scale = 0.1 }] {
        /// glob on the parameter's name
        pattern as "match": String, Form::Text, example "*embed*";
        /// factor on the learning rate; 0 freezes
        lr_scale: f64 = 1.0, Form::FROM_ZERO, example 0.1;
        /// decay of this group, vectors included
        weight_decay: f64, Form::FROM_ZERO, default "that of the optimizer", example 0.0;
    }
}

words! {
    /// Which optimizer.
    #[derive(Default)]
    pub enum OptimizerKind {
        /// AdamW for all parameters.
        #[default]
        Adamw = "adamw",
        /// Muon for the layers' matrices, AdamW for the rest.
        Muon = "muon",
    }
}

impl OptimizerKind {
    /// The default of `betas`.
    fn betas(self) -> [f64; 2] {
        match self {
            OptimizerKind::Adamw => [0.9, 0.95],
            OptimizerKind::Muon => [0.95, 0.95],
        }
    }

    /// Runs of earlier versions have no such key.
    fn is_default(&self) -> bool {
        *self == OptimizerKind::default()
    }
}

/// The optimizer and its settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Optimizer {
    /// Which one.
    #[serde(skip_serializing_if = "OptimizerKind::is_default")]
    pub kind: OptimizerKind,
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the first and second moment.
    pub betas: [f64; 2],
    /// Epsilon in the denominator.
    pub eps: f64,
    /// Decoupled weight decay, for matrices.
    pub weight_decay: f64,
    /// Largest global gradient norm; 0: no clipping.
    pub clip: f64,
    /// Parameters with their own rate or decay; the first match is used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

/// Parameters with their own rate or decay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// A valid glob that matches parameter names.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Factor on the learning rate.
    pub lr_scale: f64,
    /// Weight decay, also for vectors; absent: the optimizer's rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

/// Resolves `[train.optimizer]`.
pub fn resolve(written: Written, length: Length, notes: &mut Notes<'_>) -> Optimizer {
    // Without a step the rate is not used, so any value will do.
    let lr = written.lr.or((length == Length::Steps(0)).then_some(1e-3));
    if lr.is_none() {
        notes.missing("train.optimizer.lr", "the learning rate has no default; for example lr = 3e-4");
    }
    let mut groups = Vec::new();
    for (index, group) in written.groups.iter().enumerate() {
        let key = format!("train.optimizer.groups.{index}");
        match group.pattern.as_deref().map(glob::Pattern::new) {
            Some(Err(error)) => {
                notes.refuse(&format!("{key}.match"), format!("no glob: {error}; for example \"*embed*\""))
            }
            Some(Ok(_)) if group.lr_scale.is_none() && group.weight_decay.is_none() => {
                notes.refuse(&key, "unused: the group sets neither lr_scale nor weight_decay");
            }
            Some(Ok(_)) => {}
            None => notes.missing(&format!("{key}.match"), "which parameters? for example match = \"*embed*\""),
        }
        groups.push(Group {
            pattern: group.pattern.clone().unwrap_or_default(),
            lr_scale: group.lr_scale(),
            weight_decay: group.weight_decay,
        });
    }
    let kind = written.kind.unwrap_or_default();
    Optimizer {
        kind,
        lr: lr.unwrap_or(0.0),
        betas: written.betas.unwrap_or(kind.betas()),
        eps: written.eps(),
        weight_decay: written.weight_decay(),
        clip: written.clip(),
        groups,
    }
}
