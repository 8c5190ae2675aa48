//! `[eval]`: held-out evaluation, and when it stops a run.

use std::ops::Bound::Included;

use serde::Serialize;

use super::metric::{MetricRule, rule};
use super::roles::rollout::Rollout;
use crate::data::rows::RowKind;
use crate::data::sources::Data;
use crate::keys::notes::Notes;
use crate::keys::{Form, table};

table! {
    /// held-out evaluation
    pub struct Written at "eval": Form::Table, example { every = 50 } {
        /// steps between evaluations; 0: only before and after the run
        every: u64 = 0, Form::ANY_INT, example 50;
        /// held-out tokens used; 0: all
        tokens: u64 = 0, Form::ANY_INT, example 100000;
        /// rows: number of held-out prompts to answer, always with the most probable token; eval/exact_match is the share of
        /// answers that equal the expected one (the completion; for pairs the chosen answer; for prompts alone the column `answer`).
        /// The whole answer is compared, without surrounding white space; it is generated up to the length of the longest expected
        /// answer, and samples.jsonl says if it is longer
        generate: u64, Form::POSITIVE_INT, default "none", example 200;
        /// rows: answers sampled for each of these prompts to measure eval/pass@k, at eval.temperature, with the top_p and top_k
        /// of [rollout], if there is one
        samples: usize, Form::Int(1, 65536), default "1", example 8;
        /// each k of eval/pass@k: the probability that at least one of k answers to a prompt is the expected one, estimated
        /// without bias from eval.samples answers, over the prompts with an expected answer; rewards are not used
        pass_at: Vec<usize>, Form::Ints(1, 65536), default "[1, samples] if samples is above 1, else none",
            example [1, 4];
        /// temperature of the answers that [[reward]] scores and of those of eval.samples; 0 picks the most probable token
        temperature: f64, Form::Float(Included(0.0), Included(100.0)), default "that of the rollout, else 1.0",
            example 0.0;
        early_stop in Option<WrittenEarlyStop>;
    }
}

table! {
    /// stops the run when the metric no longer improves
    pub struct WrittenEarlyStop at "eval.early_stop": Form::Table, example { patience = 5 } {
        /// metric to watch, after min: or max: (a loss needs neither)
        metric: String, Form::Text, default "\"min:eval/loss\"; with rollouts, eval.generate and [[reward]] \"max:eval/reward\"",
            example "min:eval/loss";
        /// evaluations without improvement before the run stops
        patience: u64 = 3, Form::Int(1, 1_000_000), example 5;
        /// smallest improvement that counts
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
    /// Number of held-out prompts to answer: greedy answers are compared with the expected ones, rewards score sampled ones;
    /// absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate: Option<u64>,
    /// Temperature of the answers that rewards score and of those that pass@k counts; absent if nothing is generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// What pass@k is measured on; absent: it is not measured.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub pass: Option<PassAt>,
    /// When to stop early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
}

/// Sampled answers to held-out prompts, for pass@k.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PassAt {
    /// How many answers are sampled to each prompt.
    pub samples: usize,
    /// Each `k` of pass@k, from 1 to `samples`, in ascending order; at least one.
    pub pass_at: Vec<usize>,
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

/// Resolves `[eval]`; `usual` is the default metric.
pub fn resolve(
    written: Written,
    data: &Data,
    rollout: Option<&Rollout>,
    usual: Option<&'static str>,
    notes: &mut Notes<'_>,
) -> Eval {
    let every = written.every();
    let tokens = written.tokens();
    let nothing_held_out = !data.source().holds_out();
    if nothing_held_out && every > 0 {
        notes.refuse("eval.every", "unused: data.held_out = 0 leaves nothing to evaluate on");
    }
    if nothing_held_out && tokens > 0 {
        notes.refuse("eval.tokens", "unused: data.held_out = 0 leaves nothing to evaluate on");
    }
    if nothing_held_out {
        notes.unused("eval.generate", &written.generate, "data.held_out = 0 leaves nothing to evaluate on");
    } else if !data.source().has_rows(RowKind::PromptCompletion) && !notes.reported("data.source") {
        notes.unused("eval.generate", &written.generate, "running text has no completions to compare with");
    }
    if every == 0 && written.early_stop.is_some() && !notes.reported("eval.every") {
        notes.refuse("eval.early_stop", "unused without eval.every; for example every = 50");
    }
    if usual.is_none() && written.early_stop.as_ref().is_some_and(|stop| stop.metric.is_none()) {
        let why = match written.generate {
            None => "rollouts have no held-out loss; with [[reward]], eval.generate = 200 measures \"max:eval/reward\"",
            Some(_) => {
                "rollouts have no held-out loss, and without [[reward]] there is no eval/reward; if the rows have answers, \
                 \"max:eval/exact_match\" is measured"
            }
        };
        notes.missing("eval.early_stop.metric", why);
    }
    let early_stop = written.early_stop.map(|stop| EarlyStop {
        metric: rule(stop.metric.as_deref().or(usual), "eval.early_stop.metric", notes),
        patience: stop.patience(),
        min_delta: stop.min_delta(),
    });
    if written.generate.is_none() && !notes.reported("eval.generate") {
        notes.unused("eval.temperature", &written.temperature, "without eval.generate no answers are generated");
    }
    let temperature = written.temperature.unwrap_or(rollout.map_or(1.0, |rollout| rollout.temperature));
    let pass = pass_at((written.samples, written.pass_at), written.generate, temperature, notes);
    let temperature = written.generate.map(|_| temperature);
    Eval { every, tokens, generate: written.generate, temperature, pass, early_stop }
}

/// Resolves `eval.samples` and `eval.pass_at`, as written.
fn pass_at(
    written: (Option<usize>, Option<Vec<usize>>),
    generate: Option<u64>,
    temperature: f64,
    notes: &mut Notes<'_>,
) -> Option<PassAt> {
    let (samples, pass_at) = written;
    if generate.is_none() {
        if !notes.reported("eval.generate") {
            let why = "without eval.generate no answers are generated";
            notes.unused("eval.samples", &samples, why);
            notes.unused("eval.pass_at", &pass_at, why);
        }
        return None;
    }
    // If one of the keys has a mistake, the other cannot be checked against it.
    if notes.reported("eval.samples") || notes.reported("eval.pass_at") {
        return None;
    }
    if samples == Some(1) && pass_at.is_none() {
        notes.refuse("eval.samples", "unused: pass@k needs several answers to a prompt; for example samples = 8");
        return None;
    }
    let several = samples.filter(|samples| *samples > 1);
    let mut pass_at = pass_at.or(several.map(|samples| vec![1, samples]))?;
    pass_at.sort_unstable();
    pass_at.dedup();
    let samples = samples.unwrap_or(1);
    if let Some(most) = pass_at.last().filter(|most| **most > samples) {
        let why = format!("{most} is more than eval.samples = {samples}; set samples = {most}, or leave it out");
        notes.refuse("eval.pass_at", why);
    } else if several.is_some() && temperature == 0.0 {
        let why = "at eval.temperature = 0 all answers to a prompt are the same; for example temperature = 0.8";
        notes.refuse("eval.samples", format!("unused: {why}"));
    }
    Some(PassAt { samples, pass_at })
}
