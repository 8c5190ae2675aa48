//! An experiment as written: every value has the right form, no defaults are filled in and no rules between keys
//! are checked.
//!
//! [`super::form`] fills these from the tree; [`super::resolve`] turns them into [`super::experiment::Experiment`].
//! The meaning of each key is documented in [`super::schema::KEYS`].

use serde::Deserialize;

use super::experiment::{Arch, Columns, Dtype, OptimizerKind, Recompute, ScheduleKind, Span, Truncation};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Written {
    pub name: Option<String>,
    pub seed: Option<u64>,
    pub runs_dir: Option<String>,
    pub backend: Backend,
    pub model: Option<Model>,
    pub tokenizer: Tokenizer,
    pub data: Data,
    pub objective: Vec<Objective>,
    pub reference: Option<Reference>,
    pub critic: Option<Critic>,
    pub reward: Vec<Reward>,
    pub rollout: Option<super::tables::roles::rollout::Written>,
    pub train: Train,
    pub eval: Eval,
    pub checkpoint: Checkpoint,
    pub sample: Option<Sample>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    pub plugin: Option<String>,
    pub device: Option<String>,
    pub dtype: Option<Dtype>,
    pub threads: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    pub from: Option<String>,
    pub arch: Option<Arch>,
    pub layers: Option<usize>,
    pub dim: Option<usize>,
    pub heads: Option<usize>,
    pub kv_heads: Option<usize>,
    pub hidden: Option<usize>,
    pub context: Option<usize>,
    pub vocab: Option<usize>,
    pub tied: Option<bool>,
    pub norm_eps: Option<f64>,
    pub rope_theta: Option<f64>,
    pub init_std: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tokenizer {
    pub kind: Option<String>,
    pub path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    pub source: Option<String>,
    pub path: Option<Vec<String>>,
    pub held_out: Option<f64>,
    pub eval_path: Option<Vec<String>>,
    pub rows: Option<u64>,
    pub held_out_rows: Option<u64>,
    pub tasks: Option<Vec<String>>,
    pub split_column: Option<String>,
    pub group_column: Option<String>,
    pub chat_template: Option<String>,
    pub max_length: Option<usize>,
    pub truncation: Option<Truncation>,
    pub columns: Option<Columns>,
    pub equal_length: Option<bool>,
    pub flawed: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objective {
    pub plugin: Option<String>,
    pub weight: Option<f64>,
    pub text: Option<Vec<String>>,
    pub tokens: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reference {
    pub from: Option<String>,
    pub copy_every: Option<u64>,
    pub average: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Critic {
    pub from: Option<String>,
    pub lr: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reward {
    pub plugin: Option<String>,
    pub model: Option<String>,
    pub weight: Option<f64>,
    pub normalise: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    pub steps: Option<u64>,
    pub epochs: Option<f64>,
    pub batch: Option<Batch>,
    pub micro_batch_tokens: Option<usize>,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    pub warmup: Option<Span>,
    pub context_schedule: Option<Vec<(u64, usize)>>,
    pub recompute: Option<Recompute>,
    pub max_bad_steps: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    pub tokens: Option<usize>,
    pub sequences: Option<usize>,
    pub pairs: Option<usize>,
    pub prompts: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optimizer {
    pub kind: Option<OptimizerKind>,
    pub lr: Option<f64>,
    pub betas: Option<[f64; 2]>,
    pub eps: Option<f64>,
    pub weight_decay: Option<f64>,
    pub clip: Option<f64>,
    pub groups: Vec<Group>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    pub lr_scale: Option<f64>,
    pub weight_decay: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    pub kind: Option<ScheduleKind>,
    pub warmup: Option<Span>,
    pub min_lr_ratio: Option<f64>,
    pub decay: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Eval {
    pub every: Option<u64>,
    pub tokens: Option<u64>,
    pub generate: Option<u64>,
    pub samples: Option<usize>,
    pub pass_at: Option<Vec<usize>>,
    pub temperature: Option<f64>,
    pub early_stop: Option<EarlyStop>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EarlyStop {
    pub metric: Option<String>,
    pub patience: Option<u64>,
    pub min_delta: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoint {
    pub every: Option<u64>,
    pub keep: Option<usize>,
    pub best: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sample {
    pub every: Option<u64>,
    pub prompts: Option<Vec<String>>,
    pub max_tokens: Option<usize>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<usize>,
    pub seed: Option<u64>,
}
