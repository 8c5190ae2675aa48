//! How it is minimised: length, batch, optimizer, schedule.

use serde::{Deserialize, Serialize};

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Train {
    /// How long.
    #[serde(flatten)]
    pub length: Length,
    /// What one optimizer step sees.
    pub batch: Batch,
    /// The most tokens of one micro-batch.
    pub micro_batch_tokens: usize,
    /// Context length by step, ascending from step 0; absent: the model's throughout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_schedule: Option<Vec<(u64, usize)>>,
    /// Which activations are computed again.
    pub recompute: Recompute,
    /// Non-finite steps in a row before the run stops.
    pub max_bad_steps: u64,
    /// AdamW.
    pub optimizer: Optimizer,
    /// Learning rate over the run.
    pub schedule: Schedule,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// Optimizer steps.
    Steps(u64),
    /// Passes over the training data.
    Epochs(f64),
}

/// What one optimizer step sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Batch {
    /// So many tokens.
    Tokens(usize),
    /// So many sequences.
    Sequences(usize),
    /// So many preference pairs.
    Pairs(usize),
    /// So many prompts, which the policy answers.
    Prompts(usize),
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
    /// Decoupled decay of matrices.
    pub weight_decay: f64,
    /// Largest global gradient norm; 0: no clipping.
    pub clip: f64,
    /// Parameters with their own rate or decay; the first match counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

/// Which optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW for all parameters.
    #[default]
    Adamw,
    /// Muon for the layers' matrices, AdamW for the rest.
    Muon,
}

impl OptimizerKind {
    /// Runs of earlier versions have no such key.
    fn is_default(&self) -> bool {
        *self == OptimizerKind::default()
    }
}

/// Parameters with their own rate or decay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// A valid glob on the parameter's name.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Factor on the learning rate.
    pub lr_scale: f64,
    /// Decay, vectors included; absent: the optimizer's rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

/// Learning rate over the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Schedule {
    /// Its shape.
    pub kind: ScheduleKind,
    /// Linear warm-up from 0.
    pub warmup: Span,
    /// Floor as a fraction of lr; absent for constant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr_ratio: Option<f64>,
    /// Length of the last phase of wsd; absent for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<Span>,
}

/// Shape of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// The peak throughout.
    #[default]
    Constant,
    /// Linear to the floor.
    Linear,
    /// Half a cosine to the floor.
    Cosine,
    /// Warm-up, stable, linear decay to the floor.
    Wsd,
    /// The square root of warm-up over step.
    #[serde(rename = "inverse_sqrt")]
    InverseSqrt,
}

/// A number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Span {
    /// So many.
    Steps(u64),
    /// A fraction of all, above 0 and below 1.
    Fraction(f64),
}

impl Span {
    /// In steps, of `total`; a fraction is rounded to the nearest step.
    pub fn steps(self, total: u64) -> u64 {
        match self {
            Span::Steps(steps) => steps,
            Span::Fraction(part) => (part * total as f64).round() as u64,
        }
    }
}

/// Which activations are computed again in the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// All are kept.
    None,
    /// The cheap ones.
    Auto,
    /// All that can be.
    All,
}
