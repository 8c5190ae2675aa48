//! Known mistakes of preference training, by their numbers in the project's list.

use super::{batch, create, metric, near, of, pairwise, settings};
use objective_dpo::{loss::losses, losses::LOSSES};
use plugin_api::prelude::*;
use serde_json::{Value, json};
use std::f64::consts::LN_2;

/// Three pairs for which policy and reference differ.
fn moved() -> Batch<'static> {
    batch(&[
        [(&[-1.0, -2.0, -0.5], &[-1.5, -1.9, -0.7]), (&[-3.0], &[-2.0])],
        [(&[-0.3], &[-0.9]), (&[-1.0, -0.2], &[-1.4, -0.6])],
        [(&[-2.0, -2.0], &[-2.5, -2.25]), (&[-4.0, -1.0, -1.0], &[-3.0, -1.5, -1.25])],
    ])
}

/// The same with the policy equal to the reference.
fn unmoved() -> Batch<'static> {
    let moved = moved();
    let logp = moved.get("logp").unwrap().to_vec();
    moved.with("reference.logp", Scope::TOKEN, logp)
}

fn of_margin(given: Value, margin: f64) -> f64 {
    let batch = batch(&[[(&[-1.0], &[-1.0 - margin]), (&[-2.0], &[-2.0])]]);
    losses(&settings(given), &batch).unwrap().unwrap()[0]
}

/// Log-probabilities of hundreds and thousands: a loss written as `log(sigmoid(..))` or with `exp` is infinite here.
#[test]
fn gotcha_14_margins_of_thousands_stay_finite() {
    assert_eq!(of_margin(json!({"beta": 1.0}), -3000.0), 3000.0);
    assert_eq!(of_margin(json!({"beta": 1.0}), 3000.0), 0.0);
    let batch = batch(&[[(&[-3000.0], &[-1.0]), (&[-1.0], &[-3000.0])]]);
    for loss in pairwise() {
        let mut given = of(loss);
        given["beta"] = json!(1.0);
        let loss = create(given.clone()).unwrap().loss(&batch).unwrap();
        assert!(loss.terms[0].sum.is_finite(), "{given}: {loss:?}");
        assert!(loss.terms[0].cotangents[0].1.iter().all(|c| c.is_finite()), "{given}: {loss:?}");
    }
}

#[test]
fn gotcha_16_a_policy_equal_to_the_reference() {
    let (beta, eps) = (0.3, 0.2_f64);
    let known = [
        ("sigmoid", eps, LN_2),
        ("sigmoid-norm", 0.0, LN_2),
        ("robust", eps, LN_2),
        ("hinge", 0.0, 1.0),
        ("ipo", 0.0, 1.0 / (4.0 * beta * beta)),
        ("exo", eps, -LN_2 - 0.5 * (eps * (1.0 - eps)).ln()),
        ("nca", 0.0, 2.0 * LN_2),
        ("sppo", 0.0, 1.0 / (2.0 * beta * beta)),
        ("bco", 0.0, 2.0 * LN_2),
        ("apo-zero", 0.0, 1.0),
        ("apo-down", 0.0, 1.0),
        ("aot", eps, LN_2),
        ("aot-unpaired", 0.0, LN_2),
        ("discopop", 0.0, 0.5 * LN_2 + 0.5),
    ];
    for (name, smoothing, expected) in known {
        let dpo = create(json!({"loss": name, "beta": beta, "label_smoothing": smoothing})).unwrap();
        let loss = dpo.loss(&unmoved()).unwrap();
        near(name, loss.terms[0].sum / 3.0, expected, 1e-14);
    }
    for row in pairwise() {
        let loss = create(of(row)).unwrap().loss(&unmoved()).unwrap();
        for zero in ["rewards/chosen", "rewards/rejected", "rewards/margin", "rewards/accuracy", "kl"] {
            assert_eq!(metric(&loss, zero), 0.0, "{}: {zero}", row.name);
        }
    }
}

/// Only the log-ratio divided by its length is 1 / 2 here: a sum would give (2 - 5)^2.
#[test]
fn gotcha_18_ipo_averages_and_dpo_sums() {
    let batch = batch(&[[(&[-1.0; 4], &[-1.5; 4]), (&[-2.0; 2], &[-2.0; 2])]]);
    let one = |given: Value| losses(&settings(given), &batch).unwrap().unwrap()[0];
    near("ipo", one(json!({"loss": "ipo", "beta": 0.1})), (0.5_f64 - 5.0).powi(2), 1e-14);
    near("sigmoid", one(json!({"beta": 1.0})), (1.0 + (-2.0_f64).exp()).ln(), 1e-14);
    near("sigmoid-norm", one(json!({"loss": "sigmoid-norm", "beta": 1.0})), (1.0 + (-0.5_f64).exp()).ln(), 1e-14);
    // Rewards are sums for every loss, so that they can be compared.
    for loss in ["ipo", "sigmoid", "sigmoid-norm"] {
        let loss = create(json!({"loss": loss, "beta": 1.0})).unwrap().loss(&batch).unwrap();
        assert_eq!(metric(&loss, "rewards/margin"), 2.0);
    }
}

/// One option, three formulas, each written here from its paper; losses without one refuse the option.
#[test]
fn gotcha_19_label_smoothing_means_three_things() {
    let (eps, margin) = (0.1_f64, 0.7_f64);
    let logistic = |x: f64| (1.0 + (-x).exp()).ln();
    let p = 1.0 / (1.0 + (-margin).exp());
    let given = |loss: &str| json!({"loss": loss, "beta": 1.0, "label_smoothing": eps});
    let conservative = (1.0 - eps) * logistic(margin) + eps * logistic(-margin);
    near("cDPO", of_margin(given("sigmoid"), margin), conservative, 1e-14);
    let robust = ((1.0 - eps) * logistic(margin) - eps * logistic(-margin)) / (1.0 - 2.0 * eps);
    near("robust", of_margin(given("robust"), margin), robust, 1e-14);
    let exo = p * (p / (1.0 - eps)).ln() + (1.0 - p) * ((1.0 - p) / eps).ln();
    near("exo", of_margin(given("exo"), margin), exo, 1e-13);
    for (loss, eps) in [("exo", 0.0), ("robust", 0.5), ("hinge", 0.1)] {
        let error = create(json!({"loss": loss, "label_smoothing": eps})).err().unwrap();
        assert!(error.message.contains("label_smoothing") && error.message.contains(loss), "{error}");
    }
}

/// `apo-down` does not move the chosen answer at first, so it has no mirror image.
#[test]
fn gotcha_20_exchanging_the_sides_mirrors_the_gradient_at_zero_margin() {
    let batch = unmoved();
    let exchanged: Vec<f64> = batch.get("side").unwrap().iter().map(|side| 1.0 - side).collect();
    let mirror = unmoved().with("side", Scope::SEQUENCE, exchanged);
    for loss in pairwise().filter(|loss| loss.name != "apo-down") {
        let dpo = create(of(loss)).unwrap();
        let cotangents = |batch: &Batch<'_>| dpo.loss(batch).unwrap().terms[0].cotangents[0].1.clone();
        for (here, there) in cotangents(&batch).into_iter().zip(cotangents(&mirror)) {
            near(loss.name, here, -there, 1e-14);
            assert!(here != 0.0, "{}", loss.name);
        }
    }
}

/// The chosen answer is raised and the rejected one lowered. Not so under the discovered loss, whose published form has the
/// opposite slope around 0 for every tau below 0.1: users must know this.
#[test]
fn gotcha_20_descent_raises_the_chosen_answer() {
    let batch = batch(&[[(&[-1.0], &[-1.0]), (&[-2.0], &[-2.0])]]);
    for loss in pairwise().filter(|loss| loss.name != "apo-down") {
        let name = loss.name;
        let loss = create(of(loss)).unwrap().loss(&batch).unwrap();
        let cotangents = &loss.terms[0].cotangents[0].1;
        if name == "discopop" {
            near(name, cotangents[0], 0.1 * ((1.0 - LN_2) / (4.0 * 0.05) - 0.25 - 0.5), 1e-14);
        } else {
            assert!(cotangents[0] < 0.0 && cotangents[1] > 0.0, "{name}: {cotangents:?}");
        }
    }
}

/// Catches a name that is read and then ignored, so that it gives the default's number.
#[test]
fn gotcha_21_every_name_computes_a_different_loss() {
    let total = |given: Value| create(given).unwrap().loss(&moved()).unwrap().terms.iter().map(|t| t.sum).sum::<f64>();
    let mut totals: Vec<(String, f64)> = LOSSES.iter().map(|l| (l.name.to_owned(), total(of(l)))).collect();
    for divergence in ["forward-kl", "js", "alpha"] {
        let given =
            json!({"divergence": divergence, "divergence_alpha": if divergence == "alpha" { 0.5 } else { 1.0 }});
        totals.push((divergence.to_owned(), total(given)));
    }
    totals.push(("ld".into(), total(json!({"ld_alpha": 0.5}))));
    totals.push(("free".into(), total(json!({"reference_free": true}))));
    totals.push(("smoothed".into(), total(json!({"label_smoothing": 0.1}))));
    // Without label smoothing robust is sigmoid: that is its formula.
    totals.retain(|(name, _)| name != "robust");
    totals.push(("robust".into(), total(json!({"loss": "robust", "label_smoothing": 0.1}))));
    for (i, (name, a)) in totals.iter().enumerate() {
        for (other, b) in &totals[..i] {
            assert!((a - b).abs() > 1e-6, "{name} and {other}: {a}, {b}");
        }
    }
}

/// Both fall, the rejected one faster: the margin by itself would look like progress.
#[test]
fn gotcha_23_a_falling_chosen_answer_is_reported_next_to_the_growing_margin() {
    let batch = batch(&[[(&[-3.0, -2.0], &[-1.0, -1.0]), (&[-9.0], &[-2.0])]]);
    let loss = create(json!({"beta": 0.5})).unwrap().loss(&batch).unwrap();
    for (name, expected) in [
        ("logps/chosen", -5.0),
        ("logps/rejected", -9.0),
        ("rewards/chosen", -1.5),
        ("rewards/rejected", -3.5),
        ("rewards/margin", 2.0),
        ("rewards/accuracy", 1.0),
    ] {
        assert_eq!(metric(&loss, name), expected, "{name}");
    }
}

/// Sum over tokens, mean over answers, of the estimate of KL(reference || policy); a single token cannot make it infinite.
#[test]
fn gotcha_33_kl_is_never_negative_and_never_infinite() {
    let estimate = |d: f64| d.exp() - 1.0 - d;
    let batch = batch(&[[(&[-1.0, -2.0], &[-1.5, -1.0]), (&[-3.0], &[-3.0])]]);
    let loss = create(json!({})).unwrap().loss(&batch).unwrap();
    near("kl", metric(&loss, "kl"), (estimate(0.5) + estimate(-1.0)) / 2.0, 1e-14);
    let far = super::batch(&[[(&[-1.0], &[-5000.0]), (&[-5000.0], &[-1.0])]]);
    let kl = metric(&create(json!({})).unwrap().loss(&far).unwrap(), "kl");
    assert!(kl.is_finite() && kl > 0.0, "{kl}");
}

/// The tokens up to the shorter answer's length have weight 1, counted among the supervised ones; the rest `ld_alpha`.
#[test]
fn length_is_discounted_beyond_the_shorter_answer() {
    let (long, short): (&[f64], &[f64]) = (&[-1.0, -10.0, -1.0, -1.0, -1.0], &[-1.0, -1.0]);
    let batch = batch(&[[(long, &[0.0; 5]), (short, &[0.0; 2])]]);
    // The second token of the long answer is not supervised, so the third is its second.
    let batch = batch.with("mask", Scope::TOKEN, vec![1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    for (alpha, expected) in [(0.0, -2.0), (0.25, -2.5), (1.0, -4.0)] {
        let loss = create(json!({"ld_alpha": alpha, "beta": 1.0})).unwrap().loss(&batch).unwrap();
        assert_eq!(metric(&loss, "rewards/chosen"), expected);
        assert_eq!(metric(&loss, "rewards/rejected"), -2.0);
        assert_eq!(metric(&loss, "logps/chosen"), -4.0);
    }
}

#[test]
fn a_split_pair_is_refused() {
    let whole = moved();
    let torn = moved().with("group", Scope::SEQUENCE, vec![100.0, 99.0, 98.0, 98.0, 97.0, 97.0]);
    let error = create(json!({})).unwrap().loss(&torn).unwrap_err();
    assert!(error.message.contains("100"), "{error}");
    let sides = moved().with("side", Scope::SEQUENCE, vec![1.0, 0.0, 0.5, 1.0, 1.0, 0.0]);
    assert!(create(json!({})).unwrap().loss(&sides).is_err());
    assert!(create(json!({})).unwrap().loss(&whole).is_ok());
}
