//! `[train.optimizer]`: which optimizer, and its settings; how gradients update parameters.
//!
//! Each optimizer has its own file; its word, its default of `betas` and its creation are here.

pub mod adamw;
pub mod groups;
pub mod kind;
pub mod moments;
mod muon;
pub mod schedule;

use serde::Serialize;

use crate::{
    device::Device,
    error::Result,
    keys::{Form, notes::Notes, table, words},
    model::params::Table,
};
use adamw::{AdamW, Hyper};
use groups::{Group, Rule};
use kind::Optimizer;
use muon::Muon;

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

/// Creates the optimizer that `settings` choose for the parameters of `layout`.
///
/// # Errors
/// Request error for a group's pattern that is not a valid glob; the device is out of memory.
pub fn create(device: &Device, layout: &Table, settings: &Settings) -> Result<Box<dyn Optimizer>> {
    let mut rules = groups::rules(layout, &settings.groups, settings.weight_decay)?;
    let hyper = Hyper { betas: settings.betas, eps: settings.eps, clip: settings.clip };
    Ok(match settings.kind {
        OptimizerKind::Adamw => Box::new(AdamW::new(device, layout, hyper, &rules)?),
        OptimizerKind::Muon => {
            let hidden = layout.hidden_matrices();
            let matrices = hidden
                .into_iter()
                .map(|index| (layout.parameters()[index].clone(), std::mem::replace(&mut rules[index], Rule::FROZEN)));
            let matrices = matrices.collect();
            let rest = Box::new(AdamW::new(device, layout, hyper, &rules)?);
            Box::new(Muon::new(device, settings.betas[0], settings.clip, matrices, rest)?)
        }
    })
}

table! {
    /// AdamW, or Muon for the layers' matrices
    pub struct Written at "train.optimizer": Form::Table, example { lr = 3e-4 } {
        /// muon orthogonalises the momentum of the layers' matrices; all other parameters use AdamW with the same learning
        /// rate
        kind: OptimizerKind, Form::Word(OptimizerKind::WORDS), default "\"adamw\"", example "muon";
        /// peak learning rate
        lr: f64, Form::POSITIVE, example 3e-4;
        /// decay of the first and second moment; the first is muon's momentum
        betas: [f64; 2], Form::Betas, default "[0.9, 0.95]; for muon [0.95, 0.95]", example [0.9, 0.95];
        /// epsilon in the denominator
        eps: f64 = 1e-8, Form::POSITIVE, example 1e-8;
        /// decoupled weight decay of matrices; multiplied by the learning rate
        weight_decay: f64 = 0.0, Form::FROM_ZERO, example 0.1;
        /// largest global gradient norm; 0 turns clipping off
        clip: f64 = 1.0, Form::FROM_ZERO, example 1.0;
        groups in Vec<groups::Written>;
    }
}

/// The optimizer and its settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
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

/// Resolves `[train.optimizer]` of a run that applies updates, or of one that does not.
pub fn resolve(written: Written, trains: bool, notes: &mut Notes<'_>) -> Settings {
    // Without steps the rate is not used, so any value is fine.
    let lr = written.lr.or((!trains).then_some(1e-3));
    if lr.is_none() {
        notes.missing("train.optimizer.lr", "the learning rate has no default; for example lr = 3e-4");
    }
    let kind = written.kind.unwrap_or_default();
    Settings {
        kind,
        lr: lr.unwrap_or(0.0),
        betas: written.betas.unwrap_or(kind.betas()),
        eps: written.eps(),
        weight_decay: written.weight_decay(),
        clip: written.clip(),
        groups: groups::resolve(&written.groups, notes),
    }
}
