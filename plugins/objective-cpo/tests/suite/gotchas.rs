//! Known mistakes of preference training, by their numbers in the project's list.

use super::{
    batch, create, of_cpo, of_simpo,
    support::{metric, near},
};
use plugin_api::prelude::*;
use serde_json::{Value, json};
use std::f64::consts::LN_2;

fn loss(id: &str, given: Value, batch: &Batch<'_>) -> Loss {
    create(id, given).unwrap().loss(batch).unwrap()
}

/// A chosen answer of four tokens at -1, and a rejected one of two at -2: sums are equal, means are not.
fn unequal_lengths() -> Batch<'static> {
    batch(&[[&[-1.0; 4], &[-2.0; 2]]])
}

/// Catches a loss written as `log(sigmoid(..))` or with `exp`, which is infinite here.
#[test]
fn gotcha_14_margins_of_thousands_stay_finite() {
    let extreme = batch(&[[&[-3000.0], &[-1.0]], [&[-1.0], &[-3000.0]]]);
    for (id, cases) in [("cpo", &of_cpo()[..]), ("simpo", &of_simpo()[..])] {
        for given in cases {
            let loss = loss(id, given.clone(), &extreme);
            assert!(loss.terms[0].sum.is_finite(), "{id} {given}: {loss:?}");
            assert!(loss.terms[0].cotangents[0].1.iter().all(|c| c.is_finite()), "{id} {given}: {loss:?}");
        }
    }
    assert_eq!(loss("cpo", json!({"beta": 1.0}), &batch(&[[&[-3000.0], &[0.0]]])).terms[0].sum, 3000.0);
}

/// Catches a sum where the formula has a mean, and the reverse.
#[test]
fn gotcha_18_simpo_and_ipo_average_while_cpo_and_hinge_sum() {
    let one = |id: &str, given: Value| loss(id, given, &unequal_lengths()).terms[0].sum;
    near("cpo", one("cpo", json!({"beta": 1.0})), LN_2, 1e-14);
    near("hinge", one("cpo", json!({"loss": "hinge", "beta": 1.0})), 1.0, 1e-14);
    near("ipo", one("cpo", json!({"loss": "ipo", "beta": 0.1})), (1.0_f64 - 5.0).powi(2), 1e-14);
    let softplus = |x: f64| (1.0 + x.exp()).ln();
    near("simpo", one("simpo", json!({"beta": 3.0, "gamma": 1.0})), softplus(1.0 - 3.0), 1e-14);
}

/// Catches a smoothing that a loss without one ignores in silence, and the fourth meaning of the same word.
#[test]
fn gotcha_19_label_smoothing_mixes_both_orders_or_is_refused() {
    let (eps, softplus) = (0.1, |x: f64| (1.0 + x.exp()).ln());
    let given = json!({"beta": 3.0, "gamma": 1.0, "label_smoothing": eps});
    let found = loss("simpo", given, &unequal_lengths()).terms[0].sum;
    near("simpo", found, (1.0 - eps) * softplus(-2.0) + eps * softplus(2.0), 1e-14);
    for name in ["hinge", "ipo"] {
        let error = create("cpo", json!({"loss": name, "label_smoothing": eps, "beta": 0.0})).err().unwrap();
        assert_eq!(error.code, Code::OPTION);
        for part in ["label_smoothing", name, "`beta`: 0 is not above 0"] {
            assert!(error.message.contains(part), "{part} is missing in {error}");
        }
    }
    assert!(create("simpo", json!({"beta": 0.0})).is_err());
}

/// Catches sides that are exchanged: with a wanted margin of 0 and equal answers the gradient is mirrored.
#[test]
fn gotcha_20_exchanging_the_sides_mirrors_the_gradient_at_zero_margin() {
    let equal = batch(&[[&[-1.0, -2.0], &[-1.5, -1.5]], [&[-0.5], &[-0.5]]]);
    let mirror = equal.clone().with("side", Scope::SEQUENCE, vec![0.0, 1.0, 1.0, 0.0]);
    for (id, given) in
        [("simpo", json!({"gamma": 0.0})), ("cpo", json!({"sft_weight": 0.0})), ("cpo", json!({"loss": "ipo"}))]
    {
        let cotangents = |batch: &Batch<'_>| loss(id, given.clone(), batch).terms[0].cotangents[0].1.clone();
        let (here, there) = (cotangents(&equal), cotangents(&mirror));
        assert!(here[0] < 0.0 && here[2] > 0.0, "the chosen answer is raised: {here:?}");
        here.iter().zip(there).for_each(|(here, there)| near(id, *here, -there, 1e-14));
    }
}

/// Catches an option that is read and then ignored.
#[test]
fn gotcha_21_every_option_computes_another_loss() {
    let batch = batch(&[[&[-1.0, -2.0, -0.5], &[-3.0]], [&[-0.3], &[-1.0, -0.2]]]);
    let total = |id: &str, given: &Value| -> f64 {
        let objective = create(id, given.clone()).unwrap();
        let (loss, by) = (objective.loss(&batch).unwrap(), objective.weigh(&batch).unwrap()[0].1);
        loss.terms.iter().map(|t| t.coefficient * t.sum / if t.name == "sft" { by } else { 1.0 }).sum()
    };
    let mut totals: Vec<(String, f64)> =
        of_cpo().iter().map(|given| (given.to_string(), total("cpo", given))).collect();
    totals.extend(of_simpo().iter().map(|given| (given.to_string(), total("simpo", given))));
    for given in [json!({"sft_per": "answer"}), json!({"loss": "hinge"})] {
        totals.push((given.to_string(), total("cpo", &given)));
    }
    for (i, (name, a)) in totals.iter().enumerate() {
        for (other, b) in &totals[..i] {
            assert!((a - b).abs() > 1e-6, "{name} and {other}: {a}, {b}");
        }
    }
}

/// Both fall, the rejected one faster: the margin by itself would look like progress.
#[test]
fn gotcha_23_a_falling_chosen_answer_is_reported_next_to_the_margin() {
    let loss = loss("cpo", json!({"beta": 0.5}), &batch(&[[&[-3.0, -2.0], &[-9.0]]]));
    for (name, expected) in [
        ("logps/chosen", -5.0),
        ("logps/rejected", -9.0),
        ("rewards/chosen", -2.5),
        ("rewards/rejected", -4.5),
        ("rewards/margin", 2.0),
        ("rewards/accuracy", 1.0),
        ("nll/chosen", 2.5),
    ] {
        assert_eq!(metric(&loss, name), expected, "{name}");
    }
}

/// Catches `gamma` that is multiplied by beta: equal answers then cost softplus(beta gamma).
#[test]
fn gotcha_26_gamma_is_the_margin_in_the_unit_of_the_reward() {
    let equal = batch(&[[&[-1.0], &[-1.0, -1.0]]]);
    for beta in [0.5, 2.0, 10.0] {
        let found = loss("simpo", json!({"beta": beta, "gamma": 1.5}), &equal).terms[0].sum;
        near("simpo", found, (1.0 + 1.5_f64.exp()).ln(), 1e-14);
    }
}

/// Catches a likelihood of both sides, over prompts, or divided by the wrong count.
#[test]
fn the_likelihood_is_of_the_chosen_answers_per_token_or_per_answer() {
    let batch = batch(&[[&[-1.0, -2.0, -9.0], &[-3.0]], [&[-0.5], &[-1.0, -0.2]]]);
    let batch = batch.with("mask", Scope::TOKEN, vec![1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    for (per, count) in [("token", 3.0), ("answer", 2.0)] {
        let cpo = create("cpo", json!({"sft_per": per})).unwrap();
        assert_eq!(cpo.weigh(&batch).unwrap(), [("sft".to_owned(), count)]);
        let loss = cpo.loss(&batch).unwrap();
        assert_eq!((loss.terms[1].sum, loss.terms[1].coefficient), (3.5, 1.0));
        assert_eq!(loss.terms[1].cotangents[0].1, [-1.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0]);
        near("nll", metric(&loss, "nll/chosen"), 3.5 / 3.0, 1e-15);
    }
    let without = create("simpo", json!({})).unwrap().loss(&batch).unwrap();
    assert_eq!(without.terms.len(), 1);
}

/// Catches a reference that is computed and never read.
#[test]
fn only_the_policy_is_read() {
    for id in ["cpo", "simpo"] {
        assert_eq!(create(id, json!({})).unwrap().requirements().unwrap().statistics, ["logp"]);
    }
}
