//! Advantages, losses, gradients and metrics computed by TRL 1.16.0 and 0.16.1: `grpo.json`. Every case is compared.
//!
//! The test does the host's part: it weights and adds the rewards, and divides each term by the window's count.
//! Accumulation and several steps per rollout are the host's too, so that the file's numbers of them enter only that
//! count.

use super::{Answer, all_near, cotangent, create, metric, near, rewarded, rollout, with_prepared};
use crate::support::{file, numbers, rows};
use plugin_api::prelude::*;
use serde_json::{Value, json};

const TOLERANCE: f64 = 1e-9;
/// Metrics pass through float32 in TRL.
const METRICS: f64 = 1e-6;

fn cases(family: &str) -> Vec<Value> {
    let all = file("grpo.json")["cases"].as_array().unwrap().clone();
    all.into_iter().filter(|case| case["family"] == family).collect()
}

fn name(case: &Value) -> String {
    format!("{}, {}", case["peer"].as_str().unwrap(), case["name"].as_str().unwrap())
}

/// Catches a family without a test, and cases that were left out.
#[test]
fn every_case_has_its_test() {
    let file = file("grpo.json");
    let all = file["cases"].as_array().unwrap();
    assert_eq!(all.len(), cases("advantages").len() + cases("loss").len());
    assert!(all.len() == 33 || std::env::var_os("TELOS_ORACLES").is_some(), "{} cases", all.len());
}

/// Catches a deviation without Bessel's correction or of the wrong answers, 0 / 0 where all rewards are equal, and
/// rewards that are weighted before they are normalised. An answer that no reward scored does not reach an objective of
/// this host: it is left out here.
#[test]
fn gotcha_36_advantages_match_trl() {
    for case in cases("advantages") {
        let each = case["num_generations"].as_u64().unwrap() as usize;
        let weights = numbers(&case["reward_weights"]);
        let all = case["rewards_per_func"].as_array().unwrap();
        let scored = |row: &Value| row.as_array().unwrap().iter().any(Value::is_number);
        let kept: Vec<usize> = (0..all.len()).filter(|s| scored(&all[*s])).collect();
        let of = |s: usize, k: usize| all[s][k].as_f64().unwrap_or(0.0);
        let sum = |s: usize| (0..weights.len()).map(|k| weights[k] * of(s, k)).sum::<f64>();
        let answers: Vec<(f64, f64)> = kept.iter().map(|s| ((s / each) as f64, sum(*s))).collect();
        let named: Vec<String> = (0..weights.len()).map(|k| format!("r{k}")).collect();
        let batch = named.iter().enumerate().fold(rollout(&rewarded(&answers)), |batch, (k, name)| {
            let own: Vec<f64> = kept.iter().map(|s| of(*s, k)).collect();
            batch.with(format!("reward.{name}"), Scope::SEQUENCE, own)
        });
        let mut options = json!({"scale": case["scale_rewards"]});
        if case["aggregation"] == "normalize_then_sum" {
            options["aggregation"] = json!("normalize-then-sum");
            (options["rewards"], options["reward_weights"]) = (json!(named), json!(weights));
        }
        let prepared = create(options).unwrap().prepare(&batch).unwrap();
        let expected = numbers(&case["expected"]["advantages"]);
        (0..all.len()).filter(|s| !kept.contains(s)).for_each(|s| assert_eq!(expected[s], 0.0, "{}", name(&case)));
        let expected: Vec<f64> = kept.iter().map(|s| expected[*s]).collect();
        all_near(&name(&case), prepared.get("advantage").unwrap(), &expected, TOLERANCE);
    }
}

/// A case's options by our names. TRL's `epsilon_high` of CISPO is the cap of the ratio itself.
fn options(case: &Value) -> Value {
    let number = |key: &str| case[key].as_f64();
    let low = number("epsilon").unwrap();
    let high = number("epsilon_high").unwrap_or(low);
    let mut options = json!({"kl_coef": number("beta").unwrap()});
    let (loss, normaliser) = match case["loss_type"].as_str().unwrap() {
        "grpo" => ("clip", "sequence"),
        "bnpo" | "dapo" => ("clip", "token"),
        "dr_grpo" => ("clip", "constant"),
        "cispo" => ("cispo", "token"),
        "sapo" => ("sapo", "sequence"),
        other => panic!("unknown loss type {other}"),
    };
    (options["loss"], options["normaliser"]) = (json!(loss), json!(normaliser));
    match loss {
        "clip" => (options["clip_low"], options["clip_high"]) = (json!(low), json!(high)),
        "cispo" => options["clip_high"] = json!(high - 1.0),
        _ => {}
    }
    if normaliser == "constant" {
        options["max_length"] = case["max_completion_length"].clone();
    }
    if let Some(delta) = number("delta") {
        options["delta"] = json!(delta);
    }
    if case["importance_sampling_level"] == "sequence" {
        options["level"] = json!("sequence");
    }
    if case["use_bias_correction_kl"] == true {
        options["kl_weighted"] = json!(true);
    }
    options
}

/// What the host divides by: the count of the optimizer window. TRL states it as the number of accumulated batches like
/// this one, and for `dapo` and `cispo` as all their tokens.
fn divisor(case: &Value, grpo: &impl Objective, batch: &Batch<'_>) -> f64 {
    let accumulated = case["gradient_accumulation_steps"].as_f64().unwrap_or(1.0);
    let requirements = grpo.requirements().unwrap();
    let own = requirements.normalisers.iter().find(|own| own.term == "policy");
    let (normaliser, times) = own.map_or((Normaliser::SEQUENCES, 1.0), |own| (own.normaliser.clone(), own.times));
    let tokens = batch.mask().unwrap().iter().sum::<f64>();
    let count = match (normaliser.as_str(), case["loss_type"].as_str().unwrap()) {
        ("supervised tokens", "dapo" | "cispo") => {
            case["num_items_in_batch"].as_f64().unwrap() / case["steps_per_generation"].as_f64().unwrap()
        }
        ("supervised tokens", _) => tokens,
        _ => batch.sequences().unwrap() as f64,
    };
    count * times * accumulated
}

/// Catches a clip on the wrong side, a KL with its arguments exchanged, a mean of means, a ratio without its gradient
/// or one with it where it is held, another normaliser, and a gradient behind the mask.
#[test]
fn losses_gradients_and_metrics_match_trl() {
    let file = file("grpo.json");
    let base = &file["inputs"]["base"];
    let input = |key: &str| rows(&base[key]);
    let advantages = numbers(&base["advantages"]);
    for case in cases("loss") {
        let width = input("mask")[0].len();
        let mask = if case["input"] == "full-mask" { vec![vec![1.0; width]; advantages.len()] } else { input("mask") };
        let one = |s: usize| {
            let answer = Answer::new(0.0, &input("logps")[s]).reference(&input("ref_logps")[s]);
            answer.mask(&mask[s])
        };
        let answers: Vec<Answer> = (0..advantages.len()).map(one).collect();
        let per_token: Vec<f64> = advantages.iter().flat_map(|a| vec![*a; width]).collect();
        let old = if case["uses_old_logps"] == false { input("logps") } else { input("old_logps") };
        let batch = with_prepared(&per_token, &old.concat(), rollout(&answers));
        let grpo = create(options(&case)).unwrap_or_else(|e| panic!("{}: {e}", name(&case)));
        let (loss, divisor) = (grpo.loss(&batch).unwrap(), divisor(&case, &grpo, &batch));
        let total: f64 = loss.terms.iter().map(|term| term.coefficient * term.sum / divisor).sum();
        near(&name(&case), total, case["expected"]["loss"].as_f64().unwrap(), TOLERANCE);
        let mut gradient = vec![0.0; per_token.len()];
        for term in &loss.terms {
            let own = cotangent(&loss, &term.name);
            gradient.iter_mut().zip(own).for_each(|(sum, d)| *sum += term.coefficient * d / divisor);
        }
        all_near(&name(&case), &gradient, &rows(&case["expected"]["grad_logps"]).concat(), TOLERANCE);
        metrics(&case, &loss);
    }
}

/// 0.16.1's `clip_ratio` is not compared: it counts the tokens whose *unclipped* loss is the greater one.
fn metrics(case: &Value, loss: &Loss) {
    for (theirs, expected) in case["expected"]["metrics"].as_object().unwrap() {
        let found = match theirs.as_str() {
            "kl" => metric(loss, "kl/reference"),
            "clip_ratio/low_mean" => metric(loss, "clip/low"),
            "clip_ratio/high_mean" => metric(loss, "clip/high"),
            "clip_ratio/region_mean" => metric(loss, "clip/low") + metric(loss, "clip/high"),
            "clip_ratio" if case["peer"] == "trl 0.16.1" => continue,
            other => panic!("{}: unknown metric {other}", name(case)),
        };
        near(&format!("{}: {theirs}", name(case)), found, expected.as_f64().unwrap(), METRICS);
    }
}
