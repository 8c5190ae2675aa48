//! Advantages, losses and gradients computed by TRL 1.16.0 and 0.16.1: `grpo.json`. Compared are the cases that this objective's
//! options can express: rewards normalised by group, and the normaliser over all tokens.

use plugin_api::prelude::*;
use serde_json::{Value, json};
use test_plugin_grpo::{Grpo, advantages};

#[path = "../../support.rs"]
mod support;

use support::{create, file, near, numbers, rows};

/// Catches a deviation without Bessel's correction, one over the whole batch, and 0 / 0 where all rewards are equal.
#[test]
fn gotcha_36_advantages_match_trl() {
    let file = file("grpo.json");
    let mut met = 0;
    for case in file["cases"].as_array().unwrap() {
        let ours = case["scale_rewards"] == "group" && case["aggregation"] == "sum_then_normalize";
        let rewards = case["rewards_per_func"].as_array().cloned().unwrap_or_default();
        let complete = rewards.iter().all(|row| row.as_array().unwrap().iter().all(Value::is_number));
        if case["family"] != "advantages" || !ours || !complete {
            continue;
        }
        let weights = numbers(&case["reward_weights"]);
        let reward: Vec<f64> =
            rewards.iter().map(|row| numbers(row).iter().zip(&weights).map(|(r, w)| r * w).sum()).collect();
        let each = case["num_generations"].as_u64().unwrap() as usize;
        let group: Vec<f64> = (0..reward.len()).map(|s| (s / each) as f64).collect();
        let (found, _) = advantages(&reward, &group);
        let expected = numbers(&case["expected"]["advantages"]);
        assert_eq!(found.len(), expected.len(), "{}", case["name"]);
        for (found, expected) in found.iter().zip(expected) {
            near(case["name"].as_str().unwrap(), *found, expected, 1e-9);
        }
        met += 1;
    }
    assert_eq!(met, 3, "`group`, `zero-std-group` and `weighted`");
}

/// Catches a clip on the wrong side, a KL with its arguments exchanged, a mean of means, and a gradient behind the mask.
#[test]
fn losses_and_gradients_match_trl() {
    let file = file("grpo.json");
    let base = &file["inputs"]["base"];
    let mut met = 0;
    for case in file["cases"].as_array().unwrap() {
        let once = case["gradient_accumulation_steps"].as_u64().is_none_or(|steps| steps == 1);
        if case["family"] != "loss" || case["loss_type"] != "bnpo" || !once {
            continue;
        }
        let low = case["epsilon"].as_f64().unwrap();
        let (high, beta) = (case["epsilon_high"].as_f64().unwrap_or(low), case["beta"].as_f64().unwrap());
        let options = json!({"clip_low": low, "clip_high": high, "kl_coef": beta});
        let objective = create::<Grpo>(options).unwrap();
        let width = base["mask"][0].as_array().unwrap().len();
        let sequences = base["mask"].as_array().unwrap().len();
        let mask = rows(&base["mask"]).concat();
        let batch = Batch::new()
            .with("offsets", Scope::BATCH, (0..=sequences).map(|s| (s * width) as f64).collect::<Vec<_>>())
            .with("mask", Scope::TOKEN, mask.clone())
            .with_statistic("logp", Scope::TOKEN, rows(&base["logps"]).concat())
            .with("old_logp", Scope::TOKEN, rows(&base["old_logps"]).concat())
            .with("reference.logp", Scope::TOKEN, rows(&base["ref_logps"]).concat())
            .with("advantage", Scope::SEQUENCE, numbers(&base["advantages"]))
            .with("reward_spread", Scope::SEQUENCE, vec![1.0; sequences]);
        let loss = objective.loss(&batch).unwrap();
        let tokens: f64 = mask.iter().sum();
        let total: f64 = loss.terms.iter().map(|term| term.coefficient * term.sum / tokens).sum();
        let name = case["name"].as_str().unwrap();
        near(name, total, case["expected"]["loss"].as_f64().unwrap(), 1e-9);
        let mut gradient = vec![0.0; mask.len()];
        for term in &loss.terms {
            let (_, own) = term.cotangents.iter().find(|(name, _)| name == "logp").unwrap();
            gradient.iter_mut().zip(own).for_each(|(sum, d)| *sum += term.coefficient * d / tokens);
        }
        let expected = rows(&case["expected"]["grad_logps"]).concat();
        assert_eq!(gradient.len(), expected.len(), "{name}");
        for (found, expected) in gradient.iter().zip(expected) {
            near(name, *found, expected, 1e-9);
        }
        met += 1;
    }
    assert_eq!(met, 5, "three of 1.16.0, two of 0.16.1");
}
