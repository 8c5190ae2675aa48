//! Losses and gradients computed by TRL 0.16.1 and 1.16.0, `ORPOTrainer`: `orpo.json`. Every case is compared. TRL's
//! likelihood is over whole rows: `nll = "row"`.

use super::{
    create,
    pairs::Input,
    support::{file, metric, near},
};
use plugin_api::prelude::*;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct File {
    inputs: BTreeMap<String, Input>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    input: String,
    beta: f64,
    expected: Expected,
}

#[derive(Deserialize)]
struct Expected {
    loss: f64,
    nll_loss: f64,
    mean_chosen_logps: Vec<f64>,
    mean_rejected_logps: Vec<f64>,
    odds_terms: Vec<f64>,
    mean_log_odds: f64,
    accuracy: f64,
    grad_chosen: Vec<Vec<f64>>,
    grad_rejected: Vec<Vec<f64>>,
}

/// The rows of `pairs` as `compose` makes them: every token of a chosen row is supervised.
fn batch(input: &Input, pairs: &[usize]) -> Batch<'static> {
    let batch = input.batch(pairs);
    let (offsets, side) = (batch.offsets().unwrap(), batch.get("side").unwrap().to_vec());
    let answer = batch.mask().unwrap().to_vec();
    let mut mask = answer.clone();
    for (s, _) in side.iter().enumerate().filter(|(_, side)| **side == 1.0) {
        mask[offsets[s]..offsets[s + 1]].fill(1.0);
    }
    batch.with("mask", Scope::TOKEN, mask).with("answer", Scope::TOKEN, answer)
}

/// Catches a likelihood without the prompts, sums for means, an odds ratio upside down, and a gradient that loses its
/// digits.
#[test]
fn gotcha_25_losses_and_gradients_match_every_case_of_trl() {
    let file: File = serde_json::from_value(file("orpo.json")).unwrap();
    assert!(file.cases.len() >= 6, "{} cases", file.cases.len());
    for case in &file.cases {
        let (input, expected) = (&file.inputs[&case.input], &case.expected);
        let orpo = create(json!({"beta": case.beta, "nll": "row"})).unwrap();
        let name = |what: &str| format!("{} on {}: {what}", case.name, case.input);
        let all = batch(input, &input.pairs());
        let (loss, tokens) = (orpo.loss(&all).unwrap(), orpo.weigh(&all).unwrap()[0].1);
        let (mut total, mut gradient) = (0.0, vec![0.0; all.tokens().unwrap()]);
        for term in &loss.terms {
            let by = if term.name == "nll" { tokens } else { input.pairs().len() as f64 };
            total += term.coefficient * term.sum / by;
            for (sum, cotangent) in gradient.iter_mut().zip(&term.cotangents[0].1) {
                *sum += term.coefficient * cotangent / by;
            }
        }
        near(&name("loss"), total, expected.loss, 1e-9);
        near(&name("likelihood"), loss.terms[0].sum / tokens, expected.nll_loss, 1e-9);
        for (side, expected) in input.unpack(&gradient).iter().zip([&expected.grad_chosen, &expected.grad_rejected]) {
            for (found, expected) in side.concat().iter().zip(expected.concat()) {
                near(&name("gradient"), *found, expected, 1e-9);
            }
        }
        near(&name("log odds"), metric(&loss, "log_odds"), expected.mean_log_odds, 1e-9);
        near(&name("accuracy"), metric(&loss, "accuracy"), expected.accuracy, 1e-6);
        for p in input.pairs() {
            let one = orpo.loss(&batch(input, &[p])).unwrap();
            near(&name("odds of a pair"), one.terms[1].coefficient * one.terms[1].sum, -expected.odds_terms[p], 1e-9);
            near(&name("chosen"), metric(&one, "logps/chosen"), expected.mean_chosen_logps[p], 1e-9);
            near(&name("rejected"), metric(&one, "logps/rejected"), expected.mean_rejected_logps[p], 1e-9);
        }
    }
}
