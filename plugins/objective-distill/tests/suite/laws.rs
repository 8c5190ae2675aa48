//! The laws of every objective, and the promises of this one.

use super::{
    Distillation, OnPolicyDistillation, all_options,
    support::{create, options},
};
use plugin_api::prelude::*;
use plugin_api_laws::objective::{Generator, verify};
use serde_json::{Value, json};

#[test]
fn the_laws_hold_under_every_kind_of_options() {
    verify::<Distillation>(&all_options().map(options), &Generator::new(19)).assert_ok();
    let sampled =
        all_options().into_iter().filter(|given| given.get("top_k").is_none() || given.get("temperature").is_none());
    verify::<OnPolicyDistillation>(&sampled.map(options).collect::<Vec<_>>(), &Generator::new(20)).assert_ok();
    let error = create::<OnPolicyDistillation>(json!({"top_k": 3, "temperature": 0.5})).err().unwrap();
    assert!(error.message.contains("rollout.temperature"), "{error}");
}

fn requirements(given: &Value) -> Requirements {
    create::<Distillation>(given.clone()).unwrap().requirements().unwrap()
}

/// Catches statistics that are read without need, each of which costs a pass of the head, and a temperature that reaches the wrong
/// statistic.
#[test]
fn only_what_the_options_use_is_read_at_the_temperature_that_they_say() {
    let whole = requirements(&json!({"beta": 0.3, "temperature": 2.0, "nll": 1.0}));
    assert_eq!(whole.statistics, ["teacher.kl", "logp"]);
    assert_eq!(whole.divergence, Some(Divergence { weight: 0.3, temperature: 2.0 }));
    assert_eq!((whole.temperature, whole.candidates), (1.0, None));
    let parts = requirements(&json!({"top_k": 8, "temperature": 2.0}));
    assert_eq!(parts.statistics, ["candidates", "tail", "teacher.candidates", "teacher.tail"]);
    assert_eq!(parts.candidates, Some(Candidates { from: "teacher".into(), count: 8 }));
    assert_eq!((parts.temperature, parts.divergence), (2.0, None));
    let error = create::<Distillation>(json!({"top_k": 8, "temperature": 2.0, "nll": 1.0})).err().unwrap();
    assert_eq!(error.code, Code::OPTION);
    assert!(create::<Distillation>(json!({"top_k": 8, "nll": 1.0})).is_ok());
}

/// Two rows of two and three tokens, a candidate each; the first token of each row is a prompt's.
fn rows() -> Batch<'static> {
    let half = 0.5_f64.ln();
    let numbers = |supervised: f64| vec![f64::NAN, supervised, f64::INFINITY, supervised, supervised];
    Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 2.0, 5.0])
        .with("mask", Scope::TOKEN, vec![0.0, 1.0, 0.0, 1.0, 1.0])
        .with_statistic("candidates", Scope::TOKEN, numbers(half))
        .with_statistic("tail", Scope::TOKEN, numbers(half))
        .with("teacher.candidates", Scope::TOKEN, numbers(0.9_f64.ln()))
        .with("teacher.tail", Scope::TOKEN, numbers(0.1_f64.ln()))
        .with_statistic("teacher.kl", Scope::TOKEN, numbers(0.25))
}

/// Catches a mean over all tokens, a prompt's NaN that gets through, forward and reverse exchanged, and a tail that is left out.
#[test]
fn supervised_tokens_alone_are_compared_and_the_rest_of_the_vocabulary_counts() {
    let sum = |given: Value| create::<Distillation>(given).unwrap().loss(&rows()).unwrap().terms.remove(0);
    let whole = sum(json!({}));
    assert_eq!((whole.sum, &whole.cotangents[0].1), (0.75, &vec![0.0, 1.0, 0.0, 1.0, 1.0]));
    let forward = 0.9 * (0.9_f64 / 0.5).ln() + 0.1 * (0.1_f64 / 0.5).ln();
    let reverse = 0.5 * (0.5_f64 / 0.9).ln() + 0.5 * (0.5_f64 / 0.1).ln();
    let mixed = |w: f64| {
        let part = |q: f64, p: f64| {
            let m = w * q + (1.0 - w) * p;
            w * q * (q / m).ln() + (1.0 - w) * p * (p / m).ln()
        };
        part(0.9, 0.5) + part(0.1, 0.5)
    };
    for (weight, expected) in [(0.0, forward), (1.0, reverse), (0.2, mixed(0.2))] {
        let term = sum(json!({"top_k": 1, "beta": weight}));
        assert!((term.sum - 3.0 * expected).abs() < 1e-12, "{weight}: {} is not 3 x {expected}", term.sum);
        for (statistic, values) in &term.cotangents {
            assert_eq!([values[0], values[2]], [0.0, 0.0], "{statistic}");
        }
    }
    let covered = create::<Distillation>(json!({"top_k": 1})).unwrap().loss(&rows()).unwrap();
    assert!((super::support::metric(&covered, "covered") - 0.9).abs() < 1e-12);
}
