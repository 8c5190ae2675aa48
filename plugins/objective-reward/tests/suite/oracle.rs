//! Losses and gradients computed by TRL: `reward.json`. Versions 0.16.1 and 1.16.0 agree with each other and with this plugin:
//! every case is compared.

use super::{batch, create, file, metric, near};
use plugin_api::prelude::*;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    dtype: Option<String>,
    rewards_chosen: Vec<f64>,
    rewards_rejected: Vec<f64>,
    margin: Option<Vec<f64>>,
    center_rewards_coefficient: Option<f64>,
    expected: Expected,
}

#[derive(Deserialize)]
struct Expected {
    loss: f64,
    accuracy: f64,
    mean_margin: f64,
    grad_chosen: Vec<f64>,
    grad_rejected: Vec<f64>,
}

fn cases() -> Vec<Case> {
    serde_json::from_value::<File>(file("reward.json")).unwrap().cases
}

#[test]
fn every_case_matches_trl() {
    let cases = cases();
    assert!(!cases.is_empty());
    for case in &cases {
        let tolerance = if case.dtype.as_deref() == Some("f32") { 2e-5 } else { 1e-9 };
        let pairs = case.rewards_chosen.len() as f64;
        let batch = batch(&case.rewards_chosen, &case.rewards_rejected, case.margin.as_deref());
        let centering = case.center_rewards_coefficient.unwrap_or(0.0);
        let loss = create(json!({"centering": centering})).unwrap().loss(&batch).unwrap();
        let (mut total, mut gradient) = (0.0, vec![0.0; batch.sequences().unwrap()]);
        for term in &loss.terms {
            total += term.coefficient * term.sum / pairs;
            for (sum, cotangent) in gradient.iter_mut().zip(&term.cotangents[0].1) {
                *sum += term.coefficient * cotangent / pairs;
            }
        }
        let (name, expected) = (&case.name, &case.expected);
        near(&format!("{name}: loss"), total, expected.loss, tolerance);
        near(&format!("{name}: accuracy"), metric(&loss, "accuracy"), expected.accuracy, 1e-6);
        near(&format!("{name}: margin"), metric(&loss, "margin"), expected.mean_margin, tolerance);
        let (mut of_chosen, mut of_rejected) = (expected.grad_chosen.iter(), expected.grad_rejected.iter());
        for (found, side) in gradient.iter().zip(batch.get("side").unwrap()) {
            let expected = if *side == 1.0 { of_chosen.next() } else { of_rejected.next() };
            near(&format!("{name}: gradient"), *found, *expected.unwrap(), tolerance);
        }
    }
}
