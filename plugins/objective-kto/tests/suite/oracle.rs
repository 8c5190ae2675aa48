//! Losses, rewards and gradients computed by TRL 0.16.1 and 1.16.0, `KTOTrainer`: `kto.json`. Every case is compared.

use super::{
    create,
    support::{file, metric, near, numbers, rows},
};
use plugin_api::prelude::*;
use serde_json::{Value, json};

fn options(case: &Value) -> Value {
    let loss = match case["loss_type"].as_str().unwrap() {
        "apo_zero_unpaired" => "apo-zero-unpaired",
        same => same,
    };
    let [beta, desirable, undesirable] = ["beta", "desirable_weight", "undesirable_weight"].map(|key| &case[key]);
    json!({"loss": loss, "beta": beta, "desirable_weight": desirable, "undesirable_weight": undesirable})
}

/// The labelled rows, then the mismatched ones where a case has them.
fn batch(case: &Value) -> Batch<'static> {
    let (mut offsets, mut logp, mut reference, mut mask) = (vec![0.0], Vec::new(), Vec::new(), Vec::new());
    let (mut side, mut mismatched) = (Vec::new(), Vec::new());
    let desirable = numbers(&case["desirable"]);
    for (prefix, is_mismatched) in [("", 0.0), ("kl_", 1.0)] {
        let of = |name: &str| &case[format!("{prefix}{name}")];
        if of("mask").is_null() {
            continue;
        }
        for (index, own) in rows(of("mask")).into_iter().enumerate() {
            logp.extend(rows(of("logps")).swap_remove(index));
            reference.extend(rows(of("ref_logps")).swap_remove(index));
            mask.extend(own);
            offsets.push(mask.len() as f64);
            side.push(desirable[index]);
            mismatched.push(is_mismatched);
        }
    }
    Batch::new()
        .with("offsets", Scope::BATCH, offsets)
        .with("mask", Scope::TOKEN, mask)
        .with("side", Scope::SEQUENCE, side)
        .with("mismatched", Scope::SEQUENCE, mismatched)
        .with_statistic("logp", Scope::TOKEN, logp)
        .with("reference.logp", Scope::TOKEN, reference)
}

/// Catches a reference point with a gradient, below 0, or over labelled answers; weights exchanged; a sign; and
/// batches without a desirable or without an undesirable answer that divide by 0.
#[test]
fn gotcha_24_losses_and_gradients_match_every_case_of_trl() {
    let file = file("kto.json");
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 6, "{} cases", cases.len());
    for case in cases {
        let (name, expected, batch) = (case["name"].as_str().unwrap(), &case["expected"], batch(case));
        let (beta, desirable) = (case["beta"].as_f64().unwrap(), numbers(&case["desirable"]));
        let loss = create(options(case)).unwrap().loss(&batch).unwrap();
        let count = desirable.len() as f64;
        near(name, loss.terms[0].sum / count, expected["loss"].as_f64().unwrap(), 1e-9);
        if case["loss_type"] == "kto" {
            near(name, metric(&loss, "kl"), expected["kl"].as_f64().unwrap(), 1e-9);
        }
        let gradient = rows(&expected["grad_logps"]).concat();
        for (index, found) in loss.terms[0].cotangents[0].1.iter().enumerate() {
            near(name, found / count, gradient.get(index).copied().unwrap_or(0.0), 1e-9);
        }
        let rewards = numbers(&expected["rewards"]);
        for (which, side) in [("rewards/desirable", 1.0), ("rewards/undesirable", 0.0)] {
            let own: Vec<f64> = rewards.iter().zip(&desirable).filter(|(_, d)| **d == side).map(|(r, _)| *r).collect();
            if !own.is_empty() {
                let mean = own.iter().sum::<f64>() / own.len() as f64;
                near(&format!("{name}, beta {beta}: {which}"), metric(&loss, which), mean, 1e-9);
            }
        }
    }
}
