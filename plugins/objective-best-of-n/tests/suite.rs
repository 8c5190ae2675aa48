//! Best of n compared with the laws, with supervised learning, and with choices made by hand.

use objective_best_of_n::BestOfN;
use plugin_api::prelude::*;
use plugin_api_laws::objective::{Generator, verify};
use serde_json::{Value, json};

#[path = "../../../tests/plugins/support.rs"]
mod support;

use support::{metric, near, options};

fn create(json: Value) -> Result<BestOfN> {
    support::create(json)
}

/// A rollout of answers of one token each: group, reward and token.
fn rollout(answers: &[(f64, f64, f64)]) -> Batch<'static> {
    let each = |of: fn(&(f64, f64, f64)) -> f64| answers.iter().map(of).collect::<Vec<_>>();
    Batch::new()
        .with("offsets", Scope::BATCH, (0..=answers.len()).map(|s| s as f64).collect::<Vec<_>>())
        .with("mask", Scope::TOKEN, vec![1.0; answers.len()])
        .with("group", Scope::SEQUENCE, each(|a| a.0))
        .with("reward", Scope::SEQUENCE, each(|a| a.1))
        .with("target", Scope::TOKEN, each(|a| a.2))
        .with("ended", Scope::SEQUENCE, vec![1.0; answers.len()])
        .with_statistic("logp", Scope::TOKEN, vec![-0.5; answers.len()])
}

fn keep(given: Value, answers: &[(f64, f64, f64)]) -> Vec<f64> {
    create(given).unwrap().prepare(&rollout(answers)).unwrap().get("keep").unwrap().to_vec()
}

/// They catch among others: a choice by the place of an answer (`prepare`), a loss that is not linear (`linear`), a
/// mean of means (`additivity`).
#[test]
fn the_laws_hold_under_every_option() {
    let cases = [json!({}), json!({"keep_top": 2})].map(options).to_vec();
    verify::<BestOfN>(&cases, &Generator::new(71)).assert_ok();
    verify::<BestOfN>(&cases, &Generator::new(72).with_sizes(9, 15)).assert_ok();
}

/// Catches the worst instead of the best, one best answer of the whole rollout, and groups that are read as neighbours.
#[test]
fn the_best_answers_of_each_prompt_are_kept() {
    let answers =
        [(1.0, 0.5, 1.0), (2.0, -3.0, 2.0), (1.0, 0.75, 3.0), (2.0, -1.0, 4.0), (1.0, 0.25, 5.0), (3.0, 0.0, 6.0)];
    assert_eq!(keep(json!({}), &answers), [0.0, 0.0, 1.0, 1.0, 0.0, 1.0]);
    assert_eq!(keep(json!({"keep_top": 2}), &answers), [1.0, 1.0, 1.0, 1.0, 0.0, 1.0]);
}

/// Catches several answers, or none, where rewards are equal, and a choice that depends on their order.
#[test]
fn gotcha_36_equal_rewards_keep_as_many_answers_in_any_order() {
    let answers = [(1.0, 0.5, 11.0), (1.0, 0.5, 12.0), (1.0, 0.5, 13.0), (1.0, 0.5, 13.0)];
    let kept = keep(json!({}), &answers);
    assert_eq!(kept.iter().sum::<f64>(), 1.0);
    let reversed: Vec<_> = answers[..3].iter().rev().copied().collect();
    let (mut forwards, backwards) = (keep(json!({}), &answers[..3]), keep(json!({}), &reversed));
    forwards.reverse();
    assert_eq!(forwards, backwards);
}

/// Catches a loss with another sign or weight than supervised learning's, and a gradient behind the mask.
#[test]
fn the_loss_is_the_negative_log_likelihood() {
    let batch = rollout(&[(1.0, 2.0, 1.0), (2.0, 4.0, 2.0)]).with("mask", Scope::TOKEN, vec![1.0, 0.0]);
    let mut objective = create(json!({})).unwrap();
    let prepared = objective.prepare(&batch).unwrap();
    let batch = prepared.arrays().iter().cloned().fold(batch, Batch::with_array);
    let batch = batch.with_statistic("logp", Scope::TOKEN, vec![-0.25, f64::NAN]);
    let loss = objective.loss(&batch).unwrap();
    assert_eq!((loss.terms[0].sum, loss.terms[0].coefficient), (0.25, 1.0));
    assert_eq!(loss.terms[0].cotangents, [("logp".to_owned(), vec![-1.0, 0.0])]);
    for (name, expected) in [("rewards/best", 3.0), ("rewards/mean", 3.0), ("length", 0.5), ("ended", 1.0)] {
        near(name, metric(&loss, name), expected, 1e-14);
    }
}

/// Catches a prompt with too few answers to choose from, and one refused for nothing.
#[test]
fn one_answer_more_than_is_kept_is_required() {
    for (given, samples) in [(json!({}), 2), (json!({"keep_top": 3}), 4)] {
        let requirements = create(given).unwrap().requirements().unwrap();
        assert_eq!((requirements.samples, requirements.linear, requirements.whole_groups), (samples, true, false));
    }
    assert!(create(json!({"keep_top": 0})).is_err());
}

/// A reward that is not a number is refused by place, and ranks nothing.
#[test]
fn a_nan_is_refused_by_name_and_place() {
    let error = create(json!({})).unwrap().prepare(&rollout(&[(1.0, 0.0, 1.0), (1.0, f64::NAN, 2.0)])).unwrap_err();
    assert!(error.code == Code::ARRAY && error.message.contains("`reward`[1] of the rollout is NaN"), "{error}");
}
