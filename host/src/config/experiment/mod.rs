//! An experiment as resolved: every default filled in, every rule between keys kept.
//!
//! Written out by [`Experiment::to_toml`] it is itself a valid experiment that resolves to an equal value.

pub mod data;
pub mod evaluation;
pub mod model;
pub mod objectives;
pub mod train;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

pub use data::{Columns, Data, HeldOut, Truncation};
pub use evaluation::{Checkpoint, EarlyStop, Eval, MetricRule, Sample};
pub use model::{Arch, Model, Shape, Tokenizer};
pub use objectives::{Critic, Follow, Objective, POLICY, Reference, Reward, RewardSource, Rollout, SELF, SHARED};
pub use train::{Batch, Group, Length, Optimizer, OptimizerKind, Recompute, Schedule, ScheduleKind, Span, Train};

use crate::error::{Error, Result};

/// A whole experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Experiment {
    /// Name of the run and of its folder: a plain folder name.
    pub name: String,
    /// Seed of initial weights, data order and synthetic data; at most `i64::MAX`.
    pub seed: u64,
    /// Folder that holds the runs, relative to the current directory.
    pub runs_dir: String,
    /// Who computes.
    pub backend: Backend,
    /// What is trained.
    pub model: Model,
    /// How text becomes tokens.
    pub tokenizer: Tokenizer,
    /// What is learned from.
    pub data: Data,
    /// What is minimised: at least one.
    pub objective: Vec<Objective>,
    /// The frozen model that the policy is held to; absent: its starting weights, where an objective reads one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// The model of values; absent: a copy of the policy, where an objective reads one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critic: Option<Critic>,
    /// What answers are worth.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reward: Vec<Reward>,
    /// How answers are drawn to learn from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// How it is minimised.
    pub train: Train,
    /// Held-out evaluation.
    pub eval: Eval,
    /// What is saved, and when.
    pub checkpoint: Checkpoint,
    /// Text generated during training; absent without prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
}

impl Experiment {
    /// The file that resolves to this experiment again.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|cause| Error::run("cannot write the resolved experiment as TOML").with_cause(cause))
    }

    /// The longest training sequence, given the model's own context length.
    pub fn longest_sequence(&self, model_context: usize) -> usize {
        let model_context = match &self.data {
            Data::Jsonl { max_length: Some(max_length), .. } => model_context.min(*max_length),
            _ => model_context,
        };
        match &self.train.context_schedule {
            Some(lengths) => lengths.iter().map(|(_, length)| *length).max().unwrap_or(model_context),
            None => model_context,
        }
    }
}

/// `[backend]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backend {
    /// Id of the plugin.
    pub plugin: String,
    /// Device in the plugin's words: cpu, metal, cuda:0.
    pub device: String,
    /// Type of the computation.
    pub dtype: Dtype,
    /// Threads; 0 means all cores.
    pub threads: usize,
    /// The plugin's own options, checked and complete.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

/// Type of the computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// bfloat16 with f32 master weights.
    Bf16,
    /// 64-bit floats.
    F64,
}
