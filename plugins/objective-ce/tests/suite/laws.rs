//! The laws of every objective, and the promises of this one.

use super::{
    Plugin, all_options,
    support::{create, options},
};
use plugin_api::prelude::*;
use plugin_api_laws::objective::{Generator, verify};
use serde_json::json;

#[test]
fn the_laws_hold_under_every_kind_of_options() {
    verify::<Plugin>(&all_options().map(options), &Generator::new(17)).assert_ok();
    verify::<Plugin>(&all_options().map(options), &Generator::new(18).with_sizes(12, 20)).assert_ok();
}

#[test]
fn only_what_the_options_use_is_read() {
    for (given, statistics, linear) in [
        (json!({}), &["logp"][..], true),
        (json!({"label_smoothing": 0.1}), &["logp", "lse", "mean_logit"], true),
        (json!({"z_loss": 1e-4}), &["logp", "lse"], false),
        (json!({"label_smoothing": 0.1, "z_loss": 1e-4}), &["logp", "lse", "mean_logit"], false),
    ] {
        let requirements = create::<Plugin>(given.clone()).unwrap().requirements().unwrap();
        assert_eq!(
            (requirements.statistics, requirements.linear),
            (statistics.iter().map(|s| s.to_string()).collect(), linear),
            "{given}"
        );
    }
}

/// The declared range reaches 1, which the plugin refuses itself.
#[test]
fn smoothing_everything_is_refused() {
    let error = create::<Plugin>(json!({"label_smoothing": 1.0})).err().unwrap();
    assert_eq!(error.code, Code::OPTION);
    assert!(error.message.contains("label_smoothing"), "{error}");
    assert!(create::<Plugin>(json!({"label_smoothing": 0.999})).is_ok());
}

/// Smoothed or not: the smoothed target's cross-entropy under a uniform prediction is ln V too. Catches a smoothing that adds
/// instead of mixing, and one that leaves out the mean logit.
#[test]
fn gotcha_10_uniform_logits_cost_ln_vocab_per_token() {
    let (vocabulary, logit) = (37.0_f64, 2.5);
    let lse = vocabulary.ln() + logit;
    let batch = Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 3.0])
        .with("mask", Scope::TOKEN, vec![1.0, 0.0, 1.0])
        .with_statistic("logp", Scope::TOKEN, vec![-vocabulary.ln(), f64::NAN, -vocabulary.ln()])
        .with_statistic("lse", Scope::TOKEN, vec![lse; 3])
        .with_statistic("mean_logit", Scope::TOKEN, vec![logit; 3]);
    for smoothing in [0.0, 0.1, 0.9] {
        let ce = create::<Plugin>(json!({"label_smoothing": smoothing, "z_loss": 0.5})).unwrap();
        let loss = ce.loss(&batch).unwrap();
        assert!((loss.terms[0].sum - 2.0 * vocabulary.ln()).abs() < 1e-12, "{smoothing}: {loss:?}");
        assert!((loss.terms[1].sum - 2.0 * lse * lse).abs() < 1e-12, "{smoothing}: {loss:?}");
    }
}

/// Catches a smoothed metric, which would make a smoothed run look worse than it is.
#[test]
fn the_nll_metric_is_never_smoothed() {
    let batch = Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 2.0])
        .with("mask", Scope::TOKEN, vec![1.0, 1.0])
        .with_statistic("logp", Scope::TOKEN, vec![-1.0, -2.0])
        .with_statistic("lse", Scope::TOKEN, vec![3.0, 4.0])
        .with_statistic("mean_logit", Scope::TOKEN, vec![-1.0, 0.0]);
    let loss = create::<Plugin>(json!({"label_smoothing": 0.5})).unwrap().loss(&batch).unwrap();
    assert_eq!(loss.terms[0].sum, 0.5 * 3.0 + 0.5 * 8.0);
    assert_eq!((loss.metrics[0].name.as_str(), loss.metrics[0].value, loss.metrics[0].weight), ("nll", 3.0, 2.0));
}

#[test]
fn a_weight_is_not_a_mask_and_lengths_must_agree() {
    let batch = |mask: Vec<f64>, logp: Vec<f64>| {
        Batch::new().with("offsets", Scope::BATCH, vec![0.0, 2.0]).with("mask", Scope::TOKEN, mask).with_statistic(
            "logp",
            Scope::TOKEN,
            logp,
        )
    };
    let ce = create::<Plugin>(json!({})).unwrap();
    assert!(ce.loss(&batch(vec![1.0, 0.0], vec![-1.0, -1.0])).is_ok());
    for (bad, part) in [
        (batch(vec![1.0, 0.5], vec![-1.0, -1.0]), "entry 1 is 0.5"),
        (batch(vec![1.0, f64::NAN], vec![-1.0, -1.0]), "NaN"),
        (batch(vec![1.0], vec![-1.0, -1.0]), "`mask` has length 1"),
        (batch(vec![1.0, 1.0], vec![-1.0]), "`mask` has length 2, the variable has shape [1]"),
    ] {
        let error = ce.loss(&bad).unwrap_err();
        assert_eq!(error.code, Code::SHAPE);
        assert!(error.message.contains(part), "{error}");
    }
    let without = Batch::new().with("offsets", Scope::BATCH, vec![0.0, 1.0]).with("mask", Scope::TOKEN, vec![1.0]);
    let error = ce.loss(&without).unwrap_err();
    assert_eq!(error.code, Code::ARRAY);
    assert!(error.message.contains("`logp`"), "{error}");
}
