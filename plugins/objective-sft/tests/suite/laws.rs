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
fn only_what_the_options_use_is_read_and_the_loss_is_linear() {
    for (given, statistics) in
        [(json!({}), &["logp"][..]), (json!({"label_smoothing": 0.1}), &["logp", "lse", "mean_logit"])]
    {
        let requirements = create::<Plugin>(given.clone()).unwrap().requirements().unwrap();
        let statistics: Vec<String> = statistics.iter().map(|s| s.to_string()).collect();
        assert_eq!((requirements.statistics, requirements.linear), (statistics, true), "{given}");
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

/// Two rows: a prompt of two tokens with a completion of one, and a prompt of one with a completion of two.
fn two_rows() -> Batch<'static> {
    Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 3.0, 6.0])
        .with("mask", Scope::TOKEN, vec![0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
        .with_statistic("logp", Scope::TOKEN, vec![f64::NAN, -90.0, -1.0, f64::NEG_INFINITY, -2.0, -4.0])
        .with_statistic("lse", Scope::TOKEN, vec![3.0; 6])
        .with_statistic("mean_logit", Scope::TOKEN, vec![1.0; 6])
}

/// Catches a prompt that is learned, a multiplication by the mask, and a prompt's NaN that gets through.
#[test]
fn gotcha_08_prompts_have_no_loss_and_no_gradient_whatever_their_values() {
    let loss = create::<Plugin>(json!({})).unwrap().loss(&two_rows()).unwrap();
    assert_eq!(loss.terms[0].sum, 7.0);
    assert_eq!(loss.terms[0].cotangents, [("logp".to_owned(), vec![0.0, 0.0, -1.0, 0.0, -1.0, -1.0])]);
}

/// Catches metrics over other tokens than the loss's, smoothed metrics, and rows without a completion that are counted.
#[test]
fn gotcha_09_metrics_count_completions_only() {
    let smooth = create::<Plugin>(json!({"label_smoothing": 0.5})).unwrap();
    let parts = |batch: &Batch<'_>| -> Vec<(String, f64, f64)> {
        smooth.loss(batch).unwrap().metrics.into_iter().map(|m| (m.name, m.value, m.weight)).collect()
    };
    assert_eq!(parts(&two_rows()), [("nll".into(), 7.0, 3.0), ("completion_logp".into(), -7.0, 2.0)]);
    let without_first = two_rows().with("mask", Scope::TOKEN, vec![0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    assert_eq!(parts(&without_first), [("nll".into(), 6.0, 2.0), ("completion_logp".into(), -6.0, 1.0)]);
}

/// Smoothed or not. Catches a smoothing that adds instead of mixing, and one that leaves out the mean logit.
#[test]
fn gotcha_10_uniform_logits_cost_ln_vocab_per_token() {
    let (vocabulary, logit) = (37.0_f64, 2.5);
    let batch = two_rows()
        .with_statistic("logp", Scope::TOKEN, vec![-vocabulary.ln(); 6])
        .with_statistic("lse", Scope::TOKEN, vec![vocabulary.ln() + logit; 6])
        .with_statistic("mean_logit", Scope::TOKEN, vec![logit; 6]);
    for smoothing in [0.0, 0.1, 0.9] {
        let loss = create::<Plugin>(json!({"label_smoothing": smoothing})).unwrap().loss(&batch).unwrap();
        assert!((loss.terms[0].sum - 3.0 * vocabulary.ln()).abs() < 1e-12, "{smoothing}: {loss:?}");
    }
}

#[test]
fn a_weight_is_not_a_mask_and_lengths_must_agree() {
    let sft = create::<Plugin>(json!({})).unwrap();
    let mask = |third: f64| two_rows().with("mask", Scope::TOKEN, vec![0.0, 0.0, third, 0.0, 1.0, 1.0]);
    let short = Batch::new().with("offsets", Scope::BATCH, vec![0.0, 2.0]).with("mask", Scope::TOKEN, vec![1.0, 1.0]);
    for (bad, code, part) in [
        (mask(0.5), Code::SHAPE, "entry 2 is 0.5"),
        (mask(f64::NAN), Code::SHAPE, "NaN"),
        (two_rows().with("mask", Scope::TOKEN, vec![1.0]), Code::SHAPE, "`mask` has length 1"),
        (
            short.clone().with_statistic("logp", Scope::TOKEN, vec![-1.0]),
            Code::SHAPE,
            "`mask` has length 2, the variable has shape [1]",
        ),
        (short, Code::ARRAY, "`logp`"),
    ] {
        let error = sft.loss(&bad).unwrap_err();
        assert_eq!(error.code, code);
        assert!(error.message.contains(part), "{error}");
    }
}
