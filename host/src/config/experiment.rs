//! An experiment as resolved: every default filled in, every rule between keys kept.
//!
//! Written out by [`Experiment::to_toml`] it is itself a valid experiment that resolves to an equal value.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

pub use crate::data::rows::{Columns, Truncation};
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

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Model {
    /// An existing model.
    From {
        /// A run, a checkpoint or a Hugging Face folder.
        from: String,
    },
    /// Fresh weights.
    Shape(Shape),
}

/// The shape of a decoder with fresh weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shape {
    /// The family.
    pub arch: Arch,
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream; a multiple of `heads`.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`; absent for gpt2, which has `heads` of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Width inside the feed-forward block.
    pub hidden: usize,
    /// Longest sequence in tokens.
    pub context: usize,
    /// Rows of the embedding and the head; absent: as many as the tokenizer has tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab: Option<usize>,
    /// Whether the output head is the embedding.
    pub tied: bool,
    /// Epsilon inside the norms.
    pub norm_eps: f64,
    /// Base of the rotary frequencies; absent for gpt2, whose positions are learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Standard deviation of the initial weights.
    pub init_std: f64,
}

impl Shape {
    /// Key and value heads of either family.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads.unwrap_or(self.heads)
    }
}

/// A family of decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// RMS norm, rotary positions, SwiGLU, no biases.
    #[default]
    Llama,
    /// Layer norm, learned positions, GELU, biases.
    Gpt2,
}

/// `[tokenizer]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Tokenizer {
    /// 256 byte values and an end of text.
    Bytes,
    /// A tokenizer.json.
    File {
        /// Its path.
        path: String,
    },
    /// The one in the folder of `model.from`.
    Model,
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum Data {
    /// UTF-8 files.
    Text {
        /// Files, folders or globs.
        path: Vec<String>,
        /// What to evaluate on.
        #[serde(flatten)]
        held_out: HeldOut,
    },
    /// Rows of JSON lines, of the kind that the first objective learns from.
    Jsonl {
        /// Files, folders or globs.
        path: Vec<String>,
        /// What to evaluate on.
        #[serde(flatten)]
        held_out: HeldOut,
        /// The column whose values are held out as wholes; absent: the prompt.
        #[serde(skip_serializing_if = "Option::is_none")]
        group_column: Option<String>,
        /// "tokenizer", "plain", a file, or Jinja itself; absent: the tokenizer's, or plain, for rows that are messages, and
        /// strings are joined as they are.
        #[serde(skip_serializing_if = "Option::is_none")]
        chat_template: Option<String>,
        /// The most positions of a row; absent: the model's context.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_length: Option<usize>,
        /// What becomes of longer rows; absent: what suits their kind.
        #[serde(skip_serializing_if = "Option::is_none")]
        truncation: Option<Truncation>,
        /// Columns that have other names in the files.
        #[serde(skip_serializing_if = "Columns::is_empty")]
        columns: Columns,
    },
    /// The generated world of small tasks, which keeps a tenth of its prompts for the examples it holds out.
    Synthetic {
        /// How many examples.
        rows: u64,
        /// How many are held out.
        held_out_rows: u64,
        /// Which tasks, in the order of [`super::schema::TASKS`].
        tasks: Vec<String>,
        /// Whether the two answers of every pair are equally long.
        equal_length: bool,
        /// The share of demonstrations whose answer is flawed, from 0 to 1.
        flawed: f64,
    },
}

/// What files are split by.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum HeldOut {
    /// A fraction of the text or of the prompts, from 0 (nothing) to below 1.
    Fraction {
        /// The fraction.
        held_out: f64,
    },
    /// Files of their own.
    Files {
        /// Files, folders or globs.
        eval_path: Vec<String>,
    },
    /// Rows of which a column says so.
    Column {
        /// Its name.
        split_column: String,
    },
}

/// One `[[objective]]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Objective {
    /// Id of the plugin.
    pub plugin: String,
    /// Factor in the sum.
    pub weight: f64,
    /// Text of its own, beside the rows of the first objective.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Vec<String>>,
    /// Tokens of that text that a step sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// The plugin's own options, checked and complete.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

/// `[reference]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    /// `self` for the policy's starting weights, or a model's folder.
    pub from: String,
    /// How it follows the policy; absent: not at all.
    #[serde(flatten)]
    pub follow: Option<Follow>,
}

/// How a frozen model follows the one that trains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Follow {
    /// It becomes the policy after every so many steps.
    CopyEvery(u64),
    /// After every step it becomes this share of itself and the rest of the policy.
    Average(f64),
}

/// `[critic]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Critic {
    /// `policy`, `shared`, or a model's folder.
    pub from: String,
    /// Peak learning rate; absent: the optimizer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
}

/// A word of `reference.from`: the policy's starting weights.
pub const SELF: &str = "self";
/// A word of `critic.from`: a copy of the policy's starting weights.
pub const POLICY: &str = "policy";
/// A word of `critic.from`: a scalar head on the policy's own trunk.
pub const SHARED: &str = "shared";

/// One `[[reward]]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reward {
    /// Who says it.
    #[serde(flatten)]
    pub source: RewardSource,
    /// Factor in the reward of rollouts.
    pub weight: f64,
    /// Whether a model's scores are put on the scale that its training recorded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub normalise: bool,
    /// The plugin's own options, checked and complete.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

/// Who says what an answer is worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RewardSource {
    /// A plugin.
    Plugin {
        /// Its id.
        plugin: String,
    },
    /// A trained reward model.
    Model {
        /// Its folder.
        model: String,
    },
}

/// `[rollout]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rollout {
    /// Prompts of a rollout.
    pub prompts: usize,
    /// Answers to each.
    pub samples: usize,
    /// Passes over a rollout.
    pub epochs: usize,
    /// Longest answer in tokens.
    pub max_new_tokens: usize,
    /// Divides the logits.
    pub temperature: f64,
    /// Smallest set of tokens with this probability; 1: all.
    pub top_p: f64,
    /// The k most probable tokens; 0: all.
    pub top_k: usize,
    /// Largest distance of a reward from 0; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
}

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

/// AdamW.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Optimizer {
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

/// `[eval]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Eval {
    /// Steps between evaluations; 0: only before and after.
    pub every: u64,
    /// Held-out tokens used; 0: all.
    pub tokens: u64,
    /// Held-out prompts that are answered greedily and compared with their completions; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate: Option<u64>,
    /// Temperature of the answers that rewards measure; absent where nothing is generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// When to stop early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
}

/// When to stop early.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EarlyStop {
    /// What is watched.
    pub metric: MetricRule,
    /// Evaluations without improvement before the run stops.
    pub patience: u64,
    /// Improvement that counts.
    pub min_delta: f64,
}

/// `[checkpoint]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checkpoint {
    /// Steps between checkpoints; 0: only at the end.
    pub every: u64,
    /// How many of the newest stay.
    pub keep: usize,
    /// By what the best one is kept; absent: no best one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<MetricRule>,
}

/// A metric and which way is better; written `min:eval/loss`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct MetricRule {
    /// Name of the metric: `eval/loss`.
    pub metric: String,
    /// Whether larger is better.
    pub larger_is_better: bool,
}

impl MetricRule {
    /// From `min:NAME` or `max:NAME`; a loss or perplexity needs no prefix.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (prefix, metric) = text.split_once(':').unwrap_or(("", text));
        let larger_is_better = match prefix {
            "max" => true,
            "min" => false,
            "" if metric.ends_with("loss") || metric.ends_with("perplexity") => false,
            "" => {
                return Err(format!("write \"min:{metric}\" or \"max:{metric}\": which way is better?"));
            }
            other => return Err(format!("\"{other}:\" is neither min: nor max:")),
        };
        if metric.is_empty() {
            return Err(format!("\"{text}\" names no metric; for example \"min:eval/loss\""));
        }
        Ok(Self { metric: metric.to_owned(), larger_is_better })
    }

    /// Whether `new` is better than `old` by more than `min_delta`; NaN never is.
    pub fn is_better(&self, new: f64, old: f64, min_delta: f64) -> bool {
        if self.larger_is_better { new - old > min_delta } else { old - new > min_delta }
    }
}

impl fmt::Display for MetricRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", if self.larger_is_better { "max" } else { "min" }, self.metric)
    }
}

impl From<MetricRule> for String {
    fn from(rule: MetricRule) -> String {
        rule.to_string()
    }
}

/// `[sample]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Steps between samples; 0: only after the run.
    pub every: u64,
    /// Prompts to continue; at least one.
    pub prompts: Vec<String>,
    /// Longest continuation in tokens.
    pub max_tokens: usize,
    /// Softmax temperature; 0 takes the most probable token.
    pub temperature: f64,
    /// Smallest set of tokens with this probability; 1: all.
    pub top_p: f64,
    /// The k most probable tokens; 0: all.
    pub top_k: usize,
    /// Seed of the draws.
    pub seed: u64,
}
