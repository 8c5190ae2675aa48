//! Losses, rewards and gradients computed by TRL: `dpo.json`. Every case is compared; where TRL's convention differs from ours,
//! [`Convention`] says which numbers are compared instead.
//!
//! The test does the host's part: it packs rows, sums over terms, divides by pairs or by chosen tokens, and weights several
//! objectives.

use super::{create, file, metric, near, pairs::Input, settings};
use objective_dpo::{loss, losses::LOSSES};
use plugin_api::{objective::Term, prelude::*};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
struct File {
    inputs: BTreeMap<String, Input>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    peer: String,
    input: String,
    dtype: Option<String>,
    hyper: Map<String, Value>,
    expected: Expected,
}

#[derive(Deserialize)]
struct Expected {
    loss: f64,
    losses: Option<Vec<f64>>,
    sequence_logps: Option<Logps>,
    rewards_chosen: Option<Vec<f64>>,
    rewards_rejected: Option<Vec<f64>>,
    margins: Option<Vec<f64>>,
    mean_reward_chosen: Option<f64>,
    mean_reward_rejected: Option<f64>,
    accuracy: f64,
    mean_margin: f64,
    grad_chosen: Vec<Vec<f64>>,
    grad_rejected: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Logps {
    chosen: Vec<f64>,
    rejected: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Convention {
    Ours,
    /// Without a reference TRL's rewards subtract the reference that its loss leaves out (per token, where it does that).
    RewardsWithoutReference,
    /// 0.16.1 reports IPO's rewards per token; 1.16.0 and this plugin report sums.
    RewardsPerToken,
    /// Smoothing that TRL ignores, as 1.16.0 does for `sigmoid` and most losses do: computed here without smoothing.
    NoSmoothing,
    /// 0.16.1 uses 0.001 for EXO's smoothing of 0, which 1.16.0 and this plugin refuse.
    Smoothing,
}

fn all() -> File {
    serde_json::from_value(file("dpo.json")).unwrap()
}

impl Case {
    /// The convention of the first loss, whose rewards are compared.
    fn convention(&self) -> Convention {
        self.convention_of(self.losses()[0])
    }

    /// Decided from the case's settings and TRL's version, so that it also works for other cases. Losses and gradients are
    /// compared in all of them.
    fn convention_of(&self, loss: &str) -> Convention {
        let older = self.peer.ends_with("0.16.1");
        let smoothing = self.hyper.get("label_smoothing").and_then(Value::as_f64).unwrap_or(0.0);
        let smooths = LOSSES.iter().any(|row| row.name == ours(loss) && row.smooths);
        match loss {
            _ if self.is_reference_free(loss) => Convention::RewardsWithoutReference,
            "ipo" if older => Convention::RewardsPerToken,
            "sigmoid" | "sigmoid_norm" if !older && smoothing != 0.0 => Convention::NoSmoothing,
            "exo_pair" if older && smoothing == 0.0 => Convention::Smoothing,
            _ if smoothing != 0.0 && !smooths => Convention::NoSmoothing,
            _ => Convention::Ours,
        }
    }

    /// TRL ignores `reference_free` in some losses.
    fn is_reference_free(&self, loss: &str) -> bool {
        let passed_over = ["nca_pair", "sppo_hard", "aot", "aot_pair", "discopop"].contains(&loss);
        self.hyper.get("reference_free") == Some(&Value::Bool(true)) && !passed_over
    }

    /// The losses by TRL's names.
    fn losses(&self) -> Vec<&str> {
        match &self.hyper["loss_type"] {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            one => vec![one.as_str().unwrap()],
        }
    }

    /// Relative tolerance.
    fn tolerance(&self) -> f64 {
        if self.dtype.as_deref() == Some("f32") { 2e-5 } else { 1e-9 }
    }

    /// The objectives that an experiment would list, each with its weight. Fails for an unknown hyper-parameter.
    fn objectives(&self) -> Vec<(f64, Value)> {
        let number = |key: &str| self.hyper.get(key).and_then(Value::as_f64);
        let names = self.losses();
        let weights: Vec<f64> = match self.hyper.get("weights") {
            Some(weights) => weights.as_array().unwrap().iter().map(|w| w.as_f64().unwrap()).collect(),
            None => vec![1.0; names.len()],
        };
        let one = |name: &str| {
            let mut options = json!({"loss": ours(name), "beta": number("beta").unwrap()});
            for (key, value) in &self.hyper {
                match key.as_str() {
                    "loss_type" | "beta" | "weights" | "f_params" => {}
                    "label_smoothing" => options[key] = json!(self.smoothing(name, value.as_f64().unwrap())),
                    "reference_free" => options[key] = json!(self.is_reference_free(name)),
                    "ld_alpha" => options[key] = value.clone(),
                    "rpo_alpha" => options["sft_weight"] = value.clone(),
                    "f_div" => options["divergence"] = json!(divergence(value.as_str().unwrap())),
                    unknown => panic!("{}: hyper-parameter `{unknown}` is expressed by no option", self.name),
                }
            }
            if let Some(alpha) = self.hyper.get("f_params").and_then(|p| p.get("alpha_divergence_coef")) {
                options["divergence_alpha"] = alpha.clone();
            }
            options
        };
        weights.into_iter().zip(names.into_iter().map(one)).collect()
    }

    fn smoothing(&self, loss: &str, given: f64) -> f64 {
        match self.convention_of(loss) {
            Convention::NoSmoothing => 0.0,
            Convention::Smoothing => 1e-3,
            _ => given,
        }
    }
}

fn ours(theirs: &str) -> &str {
    match theirs {
        "nca_pair" => "nca",
        "sppo_hard" => "sppo",
        "apo_zero" => "apo-zero",
        "apo_down" => "apo-down",
        "exo_pair" => "exo",
        "aot_pair" | "aot_unpaired" => "aot-unpaired",
        "bco_pair" => "bco",
        "sigmoid_norm" => "sigmoid-norm",
        same => same,
    }
}

fn divergence(theirs: &str) -> &str {
    match theirs {
        "js_divergence" => "js",
        "alpha_divergence" => "alpha",
        "forward_kl" => "forward-kl",
        same => same,
    }
}

/// The host's total of the objectives' terms: the loss, and its gradient in packed order.
fn total(objectives: &[(f64, Value)], batch: &Batch<'_>, pairs: f64) -> (f64, Vec<f64>) {
    let (mut loss, mut gradient) = (0.0, vec![0.0; batch.tokens().unwrap()]);
    for (weight, options) in objectives {
        let dpo = create(options.clone()).unwrap();
        let normalisers = dpo.weigh(batch).unwrap();
        let denominator = |term: &Term| match term.name.as_str() {
            loss::PREFERENCE => pairs,
            custom => normalisers.iter().find(|(name, _)| name == custom).unwrap().1,
        };
        for term in dpo.loss(batch).unwrap().terms {
            let factor = weight * term.coefficient / denominator(&term);
            loss += factor * term.sum;
            for (sum, cotangent) in gradient.iter_mut().zip(&term.cotangents[0].1) {
                *sum += factor * cotangent;
            }
        }
    }
    (loss, gradient)
}

#[test]
fn loss_and_gradient_match_every_case_of_trl() {
    let file = all();
    assert!(!file.cases.is_empty());
    for case in &file.cases {
        let (input, expected, objectives) = (&file.inputs[&case.input], &case.expected, case.objectives());
        let name = format!("{} of {} on {}", case.name, case.peer, case.input);
        let batch = input.batch(&input.pairs());
        let (loss, gradient) = total(&objectives, &batch, input.pairs().len() as f64);
        near(&format!("{name}: loss"), loss, expected.loss, case.tolerance());
        for (side, expected) in input.unpack(&gradient).iter().zip([&expected.grad_chosen, &expected.grad_rejected]) {
            for (p, (row, expected)) in side.iter().zip(expected).enumerate() {
                assert_eq!(row.len(), expected.len());
                for (t, (found, expected)) in row.iter().zip(expected).enumerate() {
                    near(&format!("{name}: gradient of pair {p}, token {t}"), *found, *expected, case.tolerance());
                }
            }
        }
        if let (Some(expected), [(_, options)]) = (&expected.losses, &objectives[..]) {
            let found = loss::losses(&settings(options.clone()), &batch).unwrap().unwrap();
            assert_eq!(found.len(), expected.len());
            for (p, (found, expected)) in found.iter().zip(expected).enumerate() {
                near(&format!("{name}: loss of pair {p}"), *found, *expected, case.tolerance());
            }
        }
    }
}

/// Catches conventions so wide that every case passes.
#[test]
fn some_cases_of_trl_and_torchtune_are_compared_unchanged() {
    let file = all();
    let (all, as_they_are): (BTreeSet<&str>, BTreeSet<&str>) = (
        file.cases.iter().map(|case| case.peer.as_str()).collect(),
        file.cases.iter().filter(|case| case.convention() == Convention::Ours).map(|case| case.peer.as_str()).collect(),
    );
    assert_eq!(as_they_are, all);
}

/// Per pair, from batches of one pair: rewards and log-probabilities.
#[test]
fn rewards_and_log_probabilities_match_trl() {
    let file = all();
    for case in &file.cases {
        let (input, expected) = (&file.inputs[&case.input], &case.expected);
        let dpo = create(case.objectives()[0].1.clone()).unwrap();
        for p in input.pairs() {
            let loss = dpo.loss(&input.batch(&[p])).unwrap();
            for (what, side, rewards, logps) in [
                (
                    "chosen",
                    &input.chosen,
                    &expected.rewards_chosen,
                    expected.sequence_logps.as_ref().map(|l| &l.chosen),
                ),
                (
                    "rejected",
                    &input.rejected,
                    &expected.rewards_rejected,
                    expected.sequence_logps.as_ref().map(|l| &l.rejected),
                ),
            ] {
                let name = format!("{} on {}: {what} answer of pair {p}", case.name, case.input);
                // TRL 0.16.1 averages the log-probabilities of IPO.
                let per_token = case.hyper["loss_type"] == "ipo" && case.peer.ends_with("0.16.1");
                let scale = if per_token { side.supervised(p) } else { 1.0 };
                let reward = metric(&loss, &format!("rewards/{what}"));
                if let Some(rewards) = rewards {
                    let beta = case.hyper["beta"].as_f64().unwrap();
                    let left_out = match case.convention() {
                        Convention::RewardsWithoutReference => beta * supervised_sum(&side.ref_logps[p], &side.mask[p]),
                        _ => 0.0,
                    };
                    near(&format!("{name}: reward"), reward, scale * rewards[p] + left_out, case.tolerance());
                }
                if let Some(logps) = logps {
                    let found = metric(&loss, &format!("logps/{what}"));
                    near(&format!("{name}: log-probability"), found, scale * logps[p], case.tolerance());
                }
            }
            if let (Some(margins), Convention::Ours) = (&expected.margins, case.convention()) {
                near(&case.name, metric(&loss, "rewards/margin"), margins[p], case.tolerance());
            }
        }
    }
}

fn supervised_sum(values: &[f64], mask: &[f64]) -> f64 {
    values.iter().zip(mask).filter(|(_, m)| **m == 1.0).map(|(x, _)| x).sum()
}

/// Over the whole batch. TRL computes the accuracy in float32.
#[test]
fn reward_means_and_accuracy_match_trl() {
    let file = all();
    let elsewhere = [Convention::RewardsWithoutReference, Convention::RewardsPerToken];
    for case in file.cases.iter().filter(|case| !elsewhere.contains(&case.convention())) {
        let (input, expected) = (&file.inputs[&case.input], &case.expected);
        for (_, options) in case.objectives() {
            let loss = create(options).unwrap().loss(&input.batch(&input.pairs())).unwrap();
            let name = |what: &str| format!("{} on {}: {what}", case.name, case.input);
            near(&name("accuracy"), metric(&loss, "rewards/accuracy"), expected.accuracy, 1e-6);
            near(&name("margin"), metric(&loss, "rewards/margin"), expected.mean_margin, case.tolerance());
            for (what, mean) in [("chosen", expected.mean_reward_chosen), ("rejected", expected.mean_reward_rejected)] {
                if let Some(mean) = mean {
                    near(&name(what), metric(&loss, &format!("rewards/{what}")), mean, case.tolerance());
                }
            }
        }
    }
}
