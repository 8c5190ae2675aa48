//! A resolved experiment: every default is filled in and every rule between keys is satisfied.
//!
//! Written out by [`Experiment::to_toml`], it is a valid experiment that resolves to an equal value.

pub mod data;
pub mod evaluation;
pub mod model;
pub mod objectives;
pub mod train;

use serde::Serialize;
use serde_json::{Map, Value as Json};

pub use super::tables::roles::rollout::Rollout;
pub use data::{Columns, Data, HeldOut, Jsonl, Synthetic, Text, Truncation};
pub use evaluation::{Checkpoint, EarlyStop, Eval, MetricRule, PassAt, Sample};
pub use model::{Arch, Model, Shape, Tokenizer};
pub use objectives::{Critic, Follow, Objective, POLICY, Reference, Reward, RewardSource, SELF, SHARED};
pub use train::{Batch, Group, Length, Optimizer, OptimizerKind, Recompute, Schedule, ScheduleKind, Span, Train};

use crate::error::{Error, Result};
use crate::keys::words;

/// A whole experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Experiment {
    /// Name of the run and of its folder: a plain folder name.
    pub name: String,
    /// Seed of initial weights, data order and synthetic data; at most `i64::MAX`.
    pub seed: u64,
    /// Folder that holds the runs, relative to the current directory.
    pub runs_dir: String,
    /// The backend.
    pub backend: Backend,
    /// The model to train.
    pub model: Model,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The data.
    pub data: Data,
    /// The objectives: at least one.
    pub objective: Vec<Objective>,
    /// The frozen reference model; absent: the policy's initial weights, if an objective reads a reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// The value model; absent: a copy of the policy, if an objective reads one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critic: Option<Critic>,
    /// The rewards of answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reward: Vec<Reward>,
    /// How answers are sampled for training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Length, batch, optimizer and schedule.
    pub train: Train,
    /// Held-out evaluation.
    pub eval: Eval,
    /// When checkpoints are saved, and which are kept.
    pub checkpoint: Checkpoint,
    /// Text generated during training; absent without prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
}

impl Experiment {
    /// Returns the TOML file that resolves to this experiment.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|cause| Error::run("cannot write the resolved experiment as TOML").with_cause(cause))
    }

    /// The longest training sequence, given the model's own context length.
    pub fn longest_sequence(&self, model_context: usize) -> usize {
        let max_length = self.data.source().writing().max_length;
        let model_context = max_length.map_or(model_context, |max_length| model_context.min(max_length));
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
    /// Device, as the plugin names it: cpu, metal, cuda:0.
    pub device: String,
    /// The compute type.
    pub dtype: Dtype,
    /// Threads; 0 means all cores.
    pub threads: usize,
    /// The plugin's own options, checked and with defaults filled in.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

words! {
    /// A compute type.
    pub enum Dtype {
        /// 32-bit floats.
        F32 = "f32",
        /// bfloat16 with f32 master weights.
        Bf16 = "bf16",
        /// 64-bit floats.
        F64 = "f64",
    }
}
