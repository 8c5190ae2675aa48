//! `[checkpoint]`: what is saved, and which checkpoints are kept.

use serde::Serialize;

use super::eval::Eval;
use super::metric::{MetricRule, rule};
use crate::keys::notes::Notes;
use crate::keys::{Form, table};
use crate::model::files::save::{Storage, bytes, stored_type};

table! {
    /// when checkpoints are saved; the end of a run and Ctrl-C always save one
    pub struct Written at "checkpoint": Form::Table, example { every = 100 } {
        /// steps between checkpoints; 0: only at the end
        every: u64 = 200, Form::ANY_INT, example 100, may_change;
        /// number of newest checkpoints that are kept, in addition to the best one
        keep: usize = 3, Form::Int(1, 1_000_000), example 3, may_change;
        /// whether the folder merged of a checkpoint holds the adapter added to its base, as a model that needs no other folder; needs
        /// model.lora or model.adapter
        merged: bool = false, Form::Bool, example true, may_change;
        /// metric that decides which checkpoint is the best, after min: or max: (a loss needs neither)
        best: String, Form::Text,
            default "with eval.every: \"min:eval/loss\"; with rollouts, eval.generate and [[reward]]: \"max:eval/reward\"",
            example "min:eval/loss";
        /// type in which the model's weights are stored, for other programs; with a type other than the master weights', those are
        /// stored in addition, so that a run resumes with the same bits
        dtype: String, Form::Word(&["f32", "bf16", "f16"]), default "that of the master weights", example "bf16", may_change;
        /// size above which the model's weights are split over several files, in kB, MB, GB, KiB, MiB or GiB
        shard_size: String, Form::Text, default "one file", example "5GB", may_change;
    }
}

/// `[checkpoint]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checkpoint {
    /// Steps between checkpoints; 0: only at the end.
    pub every: u64,
    /// How many of the newest checkpoints are kept.
    pub keep: usize,
    /// Whether checkpoints also hold the adapter merged into its base.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub merged: bool,
    /// The metric by which the best checkpoint is kept; absent: no best one is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<MetricRule>,
    /// Type in which weights are stored; absent: that of the master weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Size of a file of weights; absent: all are in one file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard_size: Option<String>,
}

impl Checkpoint {
    /// How weights are stored.
    pub fn storage(&self) -> Storage {
        Storage {
            dtype: self.dtype.as_deref().and_then(stored_type),
            shard_size: self.shard_size.as_deref().and_then(|text| bytes(text).ok()),
        }
    }
}

/// Resolves `[checkpoint]`; `usual` is the default metric.
pub fn resolve(
    written: Written,
    eval: &Eval,
    usual: Option<&'static str>,
    has_adapter: bool,
    notes: &mut Notes<'_>,
) -> Checkpoint {
    if written.merged() && !has_adapter {
        notes.refuse("checkpoint.merged", "unused: no adapter is trained (model.lora, model.adapter); leave it out");
    }
    let usual = usual.filter(|_| eval.every > 0);
    let best = written.best.as_deref().or(usual).map(|metric| rule(Some(metric), "checkpoint.best", notes));
    if let Some(rule) = &best
        && rule.metric.starts_with("eval/")
        && eval.every == 0
        && !notes.reported("eval.every")
    {
        notes.refuse(
            "checkpoint.best",
            format!("unused: \"{}\" is measured only with eval.every; for example every = 50", rule.metric),
        );
    }
    if let Some(Err(why)) = written.shard_size.as_deref().map(bytes) {
        notes.refuse("checkpoint.shard_size", why);
    }
    let (every, keep, merged) = (written.every(), written.keep(), written.merged());
    Checkpoint { every, keep, merged, best, dtype: written.dtype, shard_size: written.shard_size }
}
