//! Known mistakes of KTO, by their numbers in the project's list.

use super::{
    batch, create,
    support::{metric, near},
};
use plugin_api::prelude::*;
use serde_json::{Value, json};

fn loss(given: Value, batch: &Batch<'_>) -> Loss {
    create(given).unwrap().loss(batch).unwrap()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Catches a value that overflows, and a gradient that is NaN.
#[test]
fn gotcha_14_log_ratios_of_thousands_stay_finite() {
    let far =
        batch(&[(4000.0, 1.0, 0.0), (-4000.0, 1.0, 0.0), (4000.0, 0.0, 0.0), (-4000.0, 0.0, 0.0), (0.0, 1.0, 1.0)]);
    let loss = loss(json!({"beta": 1.0}), &far);
    assert_eq!(loss.terms[0].sum, 2.0);
    assert!(loss.terms[0].cotangents.iter().all(|(_, values)| values.iter().all(|v| v.is_finite())), "{loss:?}");
}

/// Catches a loss that is not half of the mean weight where the policy is the reference, and rewards that are not 0
/// there.
#[test]
fn gotcha_16_a_policy_equal_to_the_reference() {
    let unmoved = batch(&[(0.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0)]);
    for name in ["kto", "apo-zero-unpaired"] {
        assert_eq!(loss(json!({"loss": name}), &unmoved_for(name, &unmoved)).terms[0].sum / 3.0, 0.5, "{name}");
    }
    let loss = loss(json!({"desirable_weight": 2.0, "undesirable_weight": 4.0}), &unmoved);
    assert_eq!(loss.terms[0].sum, 4.0);
    assert_eq!(
        ["value", "kl", "rewards/desirable", "rewards/undesirable"].map(|name| metric(&loss, name)),
        [0.5, 0.0, 0.0, 0.0]
    );
}

/// `apo-zero-unpaired` has no mismatched sequences.
fn unmoved_for(name: &str, all: &Batch<'static>) -> Batch<'static> {
    if name == "kto" { all.clone() } else { batch(&[(0.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)]) }
}

/// Catches means over tokens: KTO sums an answer's log-ratios.
#[test]
fn gotcha_18_log_ratios_are_sums() {
    let long = Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 3.0])
        .with("mask", Scope::TOKEN, vec![1.0, 0.0, 1.0])
        .with("side", Scope::SEQUENCE, vec![1.0])
        .with("mismatched", Scope::SEQUENCE, vec![0.0])
        .with_statistic("logp", Scope::TOKEN, vec![-1.0, f64::NAN, -2.0])
        .with("reference.logp", Scope::TOKEN, vec![-1.5, 0.0, -2.5]);
    near("kto", loss(json!({"beta": 1.0}), &long).terms[0].sum, 1.0 - sigmoid(1.0), 1e-15);
}

/// Catches a name that is read and then ignored, and weights that are exchanged.
#[test]
fn gotcha_21_every_option_changes_the_loss() {
    let batch = batch(&[(1.0, 1.0, 0.0), (0.5, 0.0, 0.0), (0.25, 1.0, 1.0), (0.75, 0.0, 1.0)]);
    let (gain, lost) = (1.0 - sigmoid(2.0 * 0.5), 1.0 - sigmoid(2.0 * 0.0));
    let given = json!({"beta": 2.0, "desirable_weight": 3.0, "undesirable_weight": 5.0});
    near("kto", loss(given, &batch).terms[0].sum, 3.0 * gain + 5.0 * lost, 1e-14);
    let zero = super::batch(&[(1.0, 1.0, 0.0), (0.5, 0.0, 0.0)]);
    let given = json!({"loss": "apo-zero-unpaired", "beta": 2.0});
    near("apo", loss(given, &zero).terms[0].sum, 1.0 - sigmoid(2.0) + 1.0 - sigmoid(-1.0), 1e-14);
}

/// Catches mismatched answers that are learned, a reference point below 0, and one with a gradient: both mean
/// log-ratios give the same cotangents of the labelled answers up to the value of z, and exactly 0 for the mismatched
/// ones.
#[test]
fn gotcha_24_the_reference_point_is_clamped_and_has_no_gradient() {
    for (mismatched, z) in [([0.5, 1.5], 1.0), ([-0.5, -1.5], 0.0)] {
        let all = batch(&[(0.25, 1.0, 0.0), (0.75, 0.0, 0.0), (mismatched[0], 1.0, 1.0), (mismatched[1], 0.0, 1.0)]);
        let loss = loss(json!({"beta": 1.0}), &all);
        assert_eq!(metric(&loss, "kl"), z);
        let slope = |x: f64| sigmoid(x) * sigmoid(-x);
        let cotangents = &loss.terms[0].cotangents[0].1;
        near("desirable", cotangents[0], -slope(0.25 - z), 1e-14);
        near("undesirable", cotangents[1], slope(z - 0.75), 1e-14);
        assert_eq!(cotangents[2..], [0.0, 0.0]);
    }
}

/// Catches a division by 0 in windows without a desirable, an undesirable or a mismatched answer.
#[test]
fn gotcha_24_windows_with_one_label_or_one_row_work() {
    for side in [1.0, 0.0] {
        let loss = loss(json!({}), &batch(&[(0.5, side, 0.0)]));
        assert!(loss.terms[0].sum.is_finite());
        for metric in &loss.metrics {
            let none =
                metric.name == "kl" || metric.name.ends_with(if side == 1.0 { "/undesirable" } else { "/desirable" });
            assert_eq!(metric.weight, if none { 0.0 } else { 1.0 }, "{metric:?}");
            assert!(metric.value.is_finite(), "{metric:?}");
        }
    }
}
