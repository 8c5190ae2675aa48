//! A whole experiment: its tables, and the keys above them.
//!
//! An [`Experiment`] is resolved: every default is filled in and every rule between keys is satisfied. Written out by
//! [`Experiment::to_toml`], it is a valid experiment that resolves to an equal value.

use serde::Serialize;

use super::sweep::table as sweep;
use super::tables::metric::usual_metric;
use super::tables::roles::{context, critic, reference, reward, rollout, teacher};
use super::tables::{alert, backend, checkpoint, eval, model, objective, sample, tokenizer, track, train};
use crate::data::sources as data;
use crate::error::{Error, Result};
use crate::keys::notes::Notes;
use crate::keys::{Form, table};
use crate::runs::folder::own_file;

pub use super::tables::alert::{Alert, BuiltIn, MetricAlert, Then, Watched};
pub use super::tables::backend::Backend;
pub use super::tables::checkpoint::Checkpoint;
pub use super::tables::eval::{EarlyStop, Eval, PassAt};
pub use super::tables::lora::Lora;
pub use super::tables::metric::MetricRule;
pub use super::tables::model::Model;
pub use super::tables::objective::Objective;
pub use super::tables::roles::context::Context;
pub use super::tables::roles::critic::{Critic, POLICY, SHARED};
pub use super::tables::roles::reference::{Adapter as ReferenceAdapter, Follow, Reference, SELF};
pub use super::tables::roles::reward::{Aggregate, Reward, RewardSource, names as reward_names};
pub use super::tables::roles::rollout::Rollout;
pub use super::tables::roles::teacher::Teacher;
pub use super::tables::sample::Sample;
pub use super::tables::tokenizer::Tokenizer;
pub use super::tables::track::Track;
pub use super::tables::train::batch::Batch;
pub use super::tables::train::length::Length;
pub use super::tables::train::{Recompute, Train};
pub use crate::data::rows::columns::Columns;
pub use crate::data::rows::truncation::Truncation;
pub use crate::data::sources::{Data, HeldOut, Jsonl, Synthetic, Text};
pub use crate::device::Dtype;
pub use crate::model::shape::fresh::Shape;
pub use crate::optimizer::groups::Group;
pub use crate::optimizer::schedule::{Schedule, ScheduleKind, Span};
pub use crate::optimizer::{OptimizerKind, Settings as Optimizer};

table! {
    /// The whole file as written.
    pub struct Written at "" {
        /// name of the run and of its folder under runs_dir: letters, digits, `-`, `_`, `.`
        name: String, Form::Text, default "the file's name without its ending", example "my-run", may_change;
        /// seed of initial weights, data order and synthetic data
        seed: u64 = 0, Form::Int(0, i64::MAX), example 7;
        /// folder that holds the runs, relative to the current directory
        runs_dir: String = "runs", Form::Text, example "runs", may_change;
        backend in backend::Written;
        model in Option<model::Written>;
        tokenizer in tokenizer::Written;
        data in data::Written;
        objective in Vec<objective::Written>;
        reference in Option<reference::Written>;
        teacher in Option<teacher::Written>;
        context in Option<context::Written>;
        critic in Option<critic::Written>;
        reward in Vec<reward::Written>;
        rollout in Option<rollout::Written>;
        train in train::Written;
        eval in eval::Written;
        checkpoint in checkpoint::Written;
        sample in Option<sample::Written>;
        track in Option<track::Written>;
        alert in Vec<alert::Written>;
        sweep in Option<sweep::Written>;
    }
}

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
    /// The model that the policy learns from; absent if no objective reads one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<Teacher>,
    /// The model that reads answers behind other prompts; absent if no objective reads one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
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
    /// Programs that show the run while it is in progress; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<Track>,
    /// Rules that watch metrics during training, besides the built-in ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alert: Vec<Alert>,
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

/// Resolves a parsed experiment: fills in defaults and checks rules between keys. Returns the experiment without the plugins'
/// options, which are checked once the plugins are loaded.
///
/// Checking does not stop at the first mistake. A missing or contradictory value is recorded as a mistake and replaced by a
/// placeholder; the result is valid only if `notes` contains no mistake.
pub fn resolve(written: Written, stem: &str, notes: &mut Notes<'_>) -> Experiment {
    if written.sweep.is_some() {
        let message = "makes a file a study, which is possible for the file that `telos run` is given, but not here; write it into the file";
        notes.refuse("sweep", message);
    }
    let (seed, runs_dir) = (written.seed(), written.runs_dir());
    let model = model::resolve(written.model, notes);
    let data = data::resolve(&written.data, notes);
    let rollout = written.rollout.and_then(|rollout| rollout::resolve(rollout, notes));
    let usual = usual_metric(rollout.is_some(), written.eval.generate, !written.reward.is_empty());
    let eval = eval::resolve(written.eval, &data, rollout.as_ref(), usual, notes);
    let context = match &model {
        Model::Shape(shape) => Some(shape.context),
        Model::From { .. } => None,
    };
    let context = data::check_max_length(&data, context, notes);
    let checkpoint = checkpoint::resolve(written.checkpoint, &eval, usual, model.has_adapter(), notes);
    let backend = backend::resolve(written.backend, notes);
    if checkpoint.merged && backend.dtype == Dtype::Bf16 {
        let why = "frozen weights are held in bf16 alone, which is too coarse for a merge; set backend.dtype = \"f32\"";
        notes.refuse("checkpoint.merged", why);
    }
    Experiment {
        name: name(written.name, stem, notes),
        seed,
        runs_dir,
        backend,
        tokenizer: tokenizer::resolve(written.tokenizer, &model, notes),
        objective: objective::resolve(written.objective, notes),
        reference: written.reference.map(|reference| reference::resolve(reference, model.has_adapter(), notes)),
        teacher: written.teacher.and_then(|teacher| teacher::resolve(teacher, notes)),
        context: written.context.and_then(|context| context::resolve(context, notes)),
        critic: written.critic.map(|critic| critic::resolve(critic, notes)),
        reward: reward::resolve(written.reward, notes),
        rollout,
        train: train::resolve(written.train, context, notes),
        checkpoint,
        sample: written.sample.and_then(|sample| sample::resolve(sample, seed, notes)),
        track: written.track.and_then(track::resolve),
        alert: alert::resolve(written.alert, eval.every > 0, notes),
        model,
        data,
        eval,
    }
}

fn name(written: Option<String>, stem: &str, notes: &mut Notes<'_>) -> String {
    let from_file = written.is_none();
    let name = written.unwrap_or_else(|| stem.to_owned());
    // A stage's run is in its pipeline's folder: `pipeline/stage`.
    let (folder, within) = name.split_once('/').unwrap_or((&name, "x"));
    if !is_folder_name(folder) || !is_run_of_study(within) {
        let origin = if from_file { "taken from the name of the file: " } else { "" };
        let rule = "letters, digits, `-`, `_`, `.`, and no `.` or `-` in front";
        let shown = name.escape_debug();
        notes.refuse(
            "name",
            format!("{origin}\"{shown}\" is not a plain folder name ({rule}); for example name = \"my-run\""),
        );
    } else if let Some(own) = own_file(folder) {
        let origin = if from_file { "taken from the name of the file: " } else { "" };
        let what = format!(
            "{origin}\"{folder}\" is reserved for a file or folder that Telos writes ({own}); for example name = \"my-run\""
        );
        notes.refuse("name", what);
    }
    name
}

/// Whether this is the name of a stage, or that of a run of a study, such as `beta=0.1,seed=2`.
fn is_run_of_study(name: &str) -> bool {
    name.len() <= 200 && is_folder_name(&name.replace(['=', ',', '+'], "_").chars().take(120).collect::<String>())
}

/// Whether this is a single folder name, without parent folders, that can be given on a command line.
pub fn is_folder_name(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 120 && !name.starts_with(['.', '-']) && name.chars().all(plain)
}
