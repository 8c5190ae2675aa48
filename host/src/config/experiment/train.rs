//! Training: length, batch, optimizer, schedule.

use serde::{Deserialize, Serialize};

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Train {
    /// The length of the run.
    #[serde(flatten)]
    pub length: Length,
    /// How much data one optimizer step reads.
    pub batch: Batch,
    /// The most tokens in one micro-batch.
    pub micro_batch_tokens: usize,
    /// Context length by step, ascending from step 0; absent: the model's context for all steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_schedule: Option<Vec<(u64, usize)>>,
    /// Which activations are recomputed.
    pub recompute: Recompute,
    /// Number of consecutive non-finite steps after which the run stops.
    pub max_bad_steps: u64,
    /// AdamW.
    pub optimizer: Optimizer,
    /// Learning rate over the run.
    pub schedule: Schedule,
}

/// The length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// Optimizer steps.
    Steps(u64),
    /// Passes over the training data.
    Epochs(f64),
}

/// How much data one optimizer step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Batch {
    /// This many tokens.
    Tokens(usize),
    /// This many sequences.
    Sequences(usize),
    /// This many preference pairs.
    Pairs(usize),
    /// This many prompts, which the policy answers.
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
    /// Decoupled weight decay, for matrices.
    pub weight_decay: f64,
    /// Largest global gradient norm; 0: no clipping.
    pub clip: f64,
    /// Parameters with their own rate or decay; the first match is used.
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
    /// A valid glob that matches parameter names.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Factor on the learning rate.
    pub lr_scale: f64,
    /// Weight decay, also for vectors; absent: the optimizer's rule.
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
    /// Constant at the peak.
    #[default]
    Constant,
    /// Linear decay to the floor.
    Linear,
    /// Half a cosine, down to the floor.
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
    /// This many steps.
    Steps(u64),
    /// A fraction of all steps, above 0 and below 1.
    Fraction(f64),
}

impl Span {
    /// The number of steps, out of `total`; a fraction is rounded to the nearest step.
    pub fn steps(self, total: u64) -> u64 {
        match self {
            Span::Steps(steps) => steps,
            Span::Fraction(part) => (part * total as f64).round() as u64,
        }
    }
}

/// Which activations are recomputed in the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// None: all are kept.
    None,
    /// Those that are cheap to compute.
    Auto,
    /// All that can be recomputed.
    All,
}
