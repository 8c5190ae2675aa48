//! The laws of every objective, and known mistakes by their numbers in the project's list.

use super::{batch, create, metric, near, options};
use objective_reward::Ranking;
use plugin_api::prelude::*;
use plugin_api_laws::objective::{Generator, verify};
use serde_json::json;
use std::f64::consts::LN_2;

#[test]
fn the_laws_hold_with_and_without_centring_and_margins() {
    let cases = [json!({}), json!({"centering": 0.2})].map(options);
    verify::<Ranking>(&cases, &Generator::new(41)).assert_ok();
    let margins = Generator::new(42).with_sizes(9, 5).with_array("column.margin", Scope::SEQUENCE, 0.0..=2.0);
    verify::<Ranking>(&cases, &margins).assert_ok();
}

#[test]
fn gotcha_14_zero_scores_cost_ln_2_and_do_not_count_as_accurate() {
    let loss = create(json!({"centering": 1.0})).unwrap().loss(&batch(&[0.0; 3], &[0.0; 3], None)).unwrap();
    near("ranking", loss.terms[0].sum / 3.0, LN_2, 1e-15);
    assert_eq!(loss.terms[1].sum, 0.0);
    assert_eq!(metric(&loss, "accuracy"), 0.0);
}

/// `log(1 + exp(..))` is infinite here.
#[test]
fn gotcha_14_scores_of_thousands_stay_finite() {
    let loss = create(json!({})).unwrap().loss(&batch(&[-2000.0, 2000.0], &[2000.0, -2000.0], None)).unwrap();
    assert_eq!(loss.terms[0].sum, 4000.0);
    assert_eq!(loss.terms[0].cotangents[0].1, [-1.0, 1.0, 0.0, 0.0]);
}

/// The margin is subtracted from the difference once per pair, and the accuracy ignores it.
#[test]
fn gotcha_14_the_margin_column_is_honoured() {
    let given = batch(&[1.0, 3.0], &[0.5, 1.0], Some(&[2.0, 0.25]));
    let loss = create(json!({})).unwrap().loss(&given).unwrap();
    let logistic = |x: f64| (1.0 + (-x).exp()).ln();
    near("ranking", loss.terms[0].sum, logistic(0.5 - 2.0) + logistic(2.0 - 0.25), 1e-14);
    assert_eq!((metric(&loss, "accuracy"), metric(&loss, "margin")), (1.0, 1.25));
    let hole = batch(&[1.0, 3.0], &[0.5, 1.0], Some(&[2.0, f64::NAN]));
    let error = create(json!({})).unwrap().loss(&hole).unwrap_err();
    assert_eq!(error.code, Code::ARRAY);
    assert!(error.message.contains("column.margin") && error.message.contains("NaN"), "{error}");
}

/// The square of the sum, not the sum of squares: scores of opposite sign are centred.
#[test]
fn gotcha_14_centring_is_the_square_of_the_pairs_sum() {
    let loss = create(json!({"centering": 0.5})).unwrap().loss(&batch(&[2.0, 1.0], &[-2.0, 2.0], None)).unwrap();
    assert_eq!((loss.terms[1].coefficient, loss.terms[1].sum), (0.5, 9.0));
}

/// Mean, spread and extremes are over both sides; without answers nothing is reported.
#[test]
fn scores_are_reported_over_both_sides() {
    let loss = create(json!({})).unwrap().loss(&batch(&[2.0, 1.0], &[-3.0, 4.0], None)).unwrap();
    for (name, expected) in
        [("score/mean", 1.0), ("score/mean_square", 7.5), ("score/min", -3.0), ("score/max", 4.0), ("accuracy", 0.5)]
    {
        assert_eq!(metric(&loss, name), expected, "{name}");
    }
    let nothing = create(json!({})).unwrap().loss(&batch(&[], &[], None)).unwrap();
    assert!(nothing.metrics.iter().all(|m| m.weight == 0.0), "{nothing:?}");
}

#[test]
fn a_score_is_read_and_nothing_else() {
    assert_eq!(create(json!({})).unwrap().requirements().unwrap().statistics, ["score"]);
    let lone = batch(&[1.0], &[0.0], None).with("side", Scope::SEQUENCE, vec![1.0, 1.0]);
    assert!(create(json!({})).unwrap().loss(&lone).is_err());
}
