//! The process reward model compared with the laws, its formula in plain numbers, and wrong data.

#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_prm::ProcessReward;
use plugin_api::prelude::*;
use plugin_api_laws::objective::{Generator, verify};
use serde_json::{Value, json};
use support::{metric, near, options};

fn create(json: Value) -> Result<ProcessReward> {
    support::create(json)
}

const SCORES: [f64; 6] = [9.0, 0.5, -2.0, 7.0, 3.0, -1.0];

/// Two answers of three tokens: the first with segments that end at its tokens 1 and 2, the second with one that ends at token 1.
fn batch(labels: &[f64], lengths: [f64; 2]) -> Batch<'static> {
    Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 3.0, 6.0])
        .with("mask", Scope::TOKEN, vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
        .with("segment_end", Scope::TOKEN, vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
        .with("column.labels", Scope::LIST, labels.to_vec())
        .with("column.labels.length", Scope::SEQUENCE, lengths.to_vec())
        .with_statistic("token_score", Scope::TOKEN, SCORES.to_vec())
}

#[test]
fn the_laws_hold_for_labels_and_soft_labels_of_segments() {
    let cases = [json!({}), json!({"last_only": true})].map(options);
    let generator = Generator::new(51).with_sizes(8, 9).with_segments().with_list("labels", 0.0..=1.0);
    verify::<ProcessReward>(&cases, &generator).assert_ok();
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Catches the probability of the wrong class, a sum over all tokens, and labels that are read from the next answer.
#[test]
fn the_loss_is_the_cross_entropy_of_every_step() {
    let given = batch(&[1.0, 0.25, 0.0], [2.0, 1.0]);
    let prm = create(json!({})).unwrap();
    let loss = prm.loss(&given).unwrap();
    let bce = |s: f64, y: f64| -(y * logistic(s).ln() + (1.0 - y) * logistic(-s).ln());
    near("bce", loss.terms[0].sum, bce(0.5, 1.0) + bce(-2.0, 0.25) + bce(3.0, 0.0), 1e-14);
    let expected = [0.0, logistic(0.5) - 1.0, logistic(-2.0) - 0.25, 0.0, logistic(3.0), 0.0];
    for (found, expected) in loss.terms[0].cotangents[0].1.iter().zip(expected) {
        near("cotangent", *found, expected, 1e-14);
    }
    assert_eq!(prm.weigh(&given).unwrap(), [("bce".to_owned(), 3.0)]);
    near("accuracy", metric(&loss, "accuracy"), 2.0 / 3.0, 1e-15);
    assert_eq!((metric(&loss, "score/right"), metric(&loss, "score/wrong")), (0.5, 0.5));
}

/// Catches an option that keeps the first step, or divides by all of them.
#[test]
fn only_the_last_step_is_learned_on_request() {
    let (given, last) = (batch(&[1.0, 0.0, 0.0], [2.0, 1.0]), create(json!({"last_only": true})).unwrap());
    assert_eq!(last.weigh(&given).unwrap(), [("bce".to_owned(), 2.0)]);
    let cotangents = last.loss(&given).unwrap().terms[0].cotangents[0].1.clone();
    assert!(cotangents[1] == 0.0 && cotangents[2] != 0.0 && cotangents[4] != 0.0, "{cotangents:?}");
}

/// Catches a truncated answer whose last step that is left is learned as its outcome.
#[test]
fn the_outcome_of_a_truncated_answer_is_not_learned() {
    // The first answer had three segments, two of which are left.
    let (given, last) = (batch(&[1.0, 1.0, 0.0, 0.0], [3.0, 1.0]), create(json!({"last_only": true})).unwrap());
    assert_eq!(last.weigh(&given).unwrap(), [("bce".to_owned(), 1.0)]);
    let cotangents = last.loss(&given).unwrap().terms[0].cotangents[0].1.clone();
    assert!(cotangents[..3] == [0.0; 3] && cotangents[4] != 0.0, "{cotangents:?}");
}

/// Catches `log(1 - sigmoid)`, which is infinite here.
#[test]
fn gotcha_14_scores_of_thousands_stay_finite() {
    let given = batch(&[0.0, 1.0, 0.0], [2.0, 1.0]);
    let given = given.with_statistic("token_score", Scope::TOKEN, vec![0.0, 2000.0, -2000.0, 0.0, 2000.0, 0.0]);
    let loss = create(json!({})).unwrap().loss(&given).unwrap();
    assert_eq!((loss.terms[0].sum, &loss.terms[0].cotangents[0].1[..]), (6000.0, &[0.0, 1.0, -1.0, 0.0, 1.0, 0.0][..]));
}

/// Catches labels that are left over after a truncation and shift those of the next answer, and wrong labels that are learned.
#[test]
fn labels_fit_their_segments_or_are_refused() {
    let prm = create(json!({})).unwrap();
    let longer = prm.loss(&batch(&[1.0, 0.25, 0.5, 0.0, 1.0], [3.0, 2.0])).unwrap();
    assert_eq!(longer.terms, prm.loss(&batch(&[1.0, 0.25, 0.0], [2.0, 1.0])).unwrap().terms);
    for (labels, lengths, part) in [
        (&[1.0, 0.0][..], [1.0, 1.0], "sequence 0 has 2 segments and 1 values"),
        (&[1.0, 0.0], [2.0, 0.0], "sequence 1 has 1 segments and 0 values"),
        (&[1.0, 0.0, -1.0], [2.0, 1.0], "-1 for sequence 1, expected a number from 0 to 1"),
    ] {
        let error = prm.loss(&batch(labels, lengths)).unwrap_err();
        assert!(error.code == Code::ARRAY && error.message.contains(part), "{error}");
    }
    let plain = Batch::new().with("offsets", Scope::BATCH, vec![0.0, 1.0]).with("mask", Scope::TOKEN, vec![1.0]);
    let error = prm.loss(&plain).unwrap_err();
    assert!(error.message.contains("have no segments") && error.message.contains("`completions`"), "{error}");
}
