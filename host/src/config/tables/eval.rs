//! `[eval]`: held-out evaluation, and when it stops a run.

use std::ops::Bound::Included;

use serde::Serialize;

use super::data::{Data, HeldOut};
use super::metric::{MetricRule, rule, usual_metric};
use super::roles::rollout::Rollout;
use crate::keys::notes::Notes;
use crate::keys::{Form, table};

table! {
    /// held-out evaluation
    pub struct Written at "eval": Form::Table, example { every = 50 } {
        /// steps between evaluations; 0: only before and after the run
        every: u64 = 0, Form::ANY_INT, example 50;
        /// held-out tokens used; 0: all
        tokens: u64 = 0, Form::ANY_INT, example 100000;
        /// rows: so many held-out prompts are answered, always by the most probable token, and eval/exact_match says
        /// how many answers are the rows' own (of pairs the chosen ones, of prompts alone the column `answer`)
        generate: u64, Form::POSITIVE_INT, default "none", example 200;
        /// of the answers that [[reward]] measures; 0 takes the most probable token
        temperature: f64, Form::Float(Included(0.0), Included(100.0)), default "that of the rollout, else 1.0",
            example 0.0;
        early_stop in Option<WrittenEarlyStop>;
    }
}

table! {
    /// stop when the metric no longer gets better
    pub struct WrittenEarlyStop at "eval.early_stop": Form::Table, example { patience = 5 } {
        /// metric watched, after min: or max: (a loss needs neither)
        metric: String, Form::Text, default "\"min:eval/loss\"; of rollouts \"max:eval/reward\"",
            example "min:eval/loss";
        /// evaluations without improvement before the run stops
        patience: u64 = 3, Form::Int(1, 1_000_000), example 5;
        /// improvement that counts
        min_delta: f64 = 0.0, Form::FROM_ZERO, example 0.001;
    }
}

/// `[eval]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Eval {
    /// Steps between evaluations; 0: only before and after.
    pub every: u64,
    /// Number of held-out tokens used; 0: all.
    pub tokens: u64,
    /// Held-out prompts that are answered greedily and compared with their completions; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate: Option<u64>,
    /// Temperature of the answers that rewards score; absent if nothing is generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// When to stop early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
}

/// When to stop early.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EarlyStop {
    /// The metric to watch.
    pub metric: MetricRule,
    /// Evaluations without improvement before the run stops.
    pub patience: u64,
    /// Smallest improvement that counts.
    pub min_delta: f64,
}

/// Resolves `[eval]`.
pub fn resolve(written: Written, data: &Data, rollout: Option<&Rollout>, notes: &mut Notes<'_>) -> Eval {
    let every = written.every();
    let tokens = written.tokens();
    let nothing_held_out = match data {
        Data::Text { held_out, .. } | Data::Jsonl { held_out, .. } => *held_out == HeldOut::Fraction { held_out: 0.0 },
        Data::Synthetic { .. } => false,
    };
    if nothing_held_out && every > 0 {
        notes.refuse("eval.every", "unused: data.held_out = 0 leaves nothing to evaluate on");
    }
    if nothing_held_out && tokens > 0 {
        notes.refuse("eval.tokens", "unused: data.held_out = 0 leaves nothing to evaluate on");
    }
    if nothing_held_out {
        notes.unused("eval.generate", &written.generate, "data.held_out = 0 leaves nothing to evaluate on");
    } else if matches!(data, Data::Text { .. }) {
        notes.unused("eval.generate", &written.generate, "running text has no completions to compare with");
    }
    if every == 0 && written.early_stop.is_some() && !notes.reported("eval.every") {
        notes.refuse("eval.early_stop", "unused without eval.every; for example every = 50");
    }
    let usual = usual_metric(rollout, written.generate);
    if usual.is_none() && written.early_stop.as_ref().is_some_and(|stop| stop.metric.is_none()) {
        notes.missing(
            "eval.early_stop.metric",
            "rollouts have no held-out loss; eval.generate = 200 measures \"max:eval/reward\"",
        );
    }
    let early_stop = written.early_stop.map(|stop| EarlyStop {
        metric: rule(stop.metric.as_deref().or(usual), "eval.early_stop.metric", notes),
        patience: stop.patience(),
        min_delta: stop.min_delta(),
    });
    if written.generate.is_none() && !notes.reported("eval.generate") {
        notes.unused("eval.temperature", &written.temperature, "without eval.generate nothing is answered");
    }
    let temperature = written.temperature.unwrap_or(rollout.map_or(1.0, |rollout| rollout.temperature));
    Eval { every, tokens, generate: written.generate, temperature: written.generate.map(|_| temperature), early_stop }
}
