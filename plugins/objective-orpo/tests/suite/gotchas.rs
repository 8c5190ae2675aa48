//! Known mistakes of preference training, by their numbers in the project's list.

use super::{
    create, pair,
    support::{metric, near},
};
use plugin_api::prelude::*;
use serde_json::{Value, json};
use std::f64::consts::LN_2;

fn loss(given: Value, batch: &Batch<'_>) -> Loss {
    create(given).unwrap().loss(batch).unwrap()
}

/// Catches sums of log-probabilities, which are not comparable between lengths: here the sums differ and the means do
/// not.
#[test]
fn gotcha_18_odds_are_of_mean_log_probabilities() {
    let loss = loss(json!({"nll": "row"}), &pair([-0.5, -1.5], -1.0));
    near("odds", loss.terms[1].sum, LN_2, 1e-15);
    near("log odds", metric(&loss, "log_odds"), 0.0, 1e-15);
    assert_eq!([metric(&loss, "logps/chosen"), metric(&loss, "logps/rejected")], [-1.0, -1.0]);
    assert_eq!(metric(&loss, "accuracy"), 0.0, "a tie does not count");
}

/// Catches `log(1 - exp(p))` as written: of p = -1e-8 its f32 value is the logarithm of 0, and its f64 value has half
/// of the digits.
#[test]
fn gotcha_25_odds_of_nearly_certain_answers_keep_their_digits() {
    let loss = loss(json!({"nll": "row"}), &pair([-1e-8, -1e-8], -2e-8));
    // log odds = -log(exp(x) - 1) for p = -x; for small x that is -log x - x / 2.
    near("log odds", metric(&loss, "log_odds"), LN_2 + 0.5e-8, 1e-14);
}

/// Catches an infinite loss or gradient where f32 rounds every probability of an answer to 1.
#[test]
fn gotcha_25_a_certain_answer_has_finite_odds() {
    for (chosen, rejected) in [(0.0, -1.0), (-1.0, 0.0), (0.0, 0.0), (-800.0, 0.0), (0.0, -800.0), (-5000.0, -4000.0)] {
        let loss = loss(json!({"nll": "row"}), &pair([chosen; 2], rejected));
        let term = &loss.terms[1];
        assert!(term.sum.is_finite() && term.sum >= 0.0, "{chosen}, {rejected}: {loss:?}");
        assert!(term.cotangents[0].1.iter().all(|c| c.is_finite()), "{chosen}, {rejected}: {loss:?}");
    }
}

/// Catches a likelihood over the wrong tokens: the answer alone (the paper) or the whole row (TRL); and a prompt in
/// the odds.
#[test]
fn gotcha_25_the_likelihood_is_of_the_answer_or_of_the_row() {
    let row = pair([-1.0, -2.0], -0.5);
    let completion = row.clone().with("mask", Scope::TOKEN, vec![0.0, 1.0, 1.0, 0.0, 1.0]);
    let mut odds = Vec::new();
    for (given, batch, sum, tokens, gradient) in [
        (json!({"nll": "row"}), &row, 10.0, 3.0, [-1.0, -1.0, -1.0, 0.0, 0.0]),
        (json!({"nll": "completion"}), &completion, 3.0, 2.0, [0.0, -1.0, -1.0, 0.0, 0.0]),
    ] {
        let orpo = create(given).unwrap();
        let loss = orpo.loss(batch).unwrap();
        assert_eq!(orpo.weigh(batch).unwrap(), [("nll".to_owned(), tokens)]);
        assert_eq!((loss.terms[0].sum, &loss.terms[0].cotangents[0].1[..]), (sum, &gradient[..]));
        assert_eq!(loss.terms[1].cotangents[0].1[0], 0.0, "the prompt has no odds");
        odds.push(loss.terms[1].sum);
    }
    assert_eq!(odds[0], odds[1]);
}

/// Catches a weight that is not forwarded.
#[test]
fn gotcha_21_beta_is_the_weight_of_the_odds() {
    let coefficient = |given: Value| loss(given, &pair([-1.0, -2.0], -0.5)).terms[1].coefficient;
    assert_eq!([coefficient(json!({"nll": "row"})), coefficient(json!({"nll": "row", "beta": 0.7}))], [0.1, 0.7]);
}

/// Catches descent that lowers the chosen answer.
#[test]
fn gotcha_20_descent_raises_the_chosen_answer() {
    let loss = loss(json!({"nll": "row"}), &pair([-1.0, -1.0], -1.0));
    let odds = &loss.terms[1].cotangents[0].1;
    assert!(odds[1] < 0.0 && odds[2] < 0.0 && odds[4] > 0.0, "{odds:?}");
    near("mirrored", odds[1] + odds[2], -odds[4], 1e-14);
}
