//! The laws of every objective, and the numbers of this one.

use super::{
    all_options, create,
    support::{metric, near, options},
};
use objective_fim::FillInTheMiddle;
use plugin_api::prelude::*;
use plugin_api_laws::objective::{Generator, verify};
use serde_json::json;

#[test]
fn the_laws_hold_under_every_kind_of_options() {
    // The reserved ids are above this vocabulary, and within the other one.
    let generators = [Generator::new(81), Generator::new(82).with_vocabulary(260).with_sizes(9, 15)];
    for generator in generators {
        verify::<FillInTheMiddle>(&all_options().map(options), &generator).assert_ok();
    }
}

/// A sequence as it was, and a rewritten one of which the last two tokens are the middle.
fn two() -> Batch<'static> {
    Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 2.0, 6.0])
        .with("mask", Scope::TOKEN, vec![1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
        .with("place", Scope::TOKEN, vec![0.0, 0.0, 1.0, 1.0, 2.0, 2.0])
        .with_statistic("logp", Scope::TOKEN, vec![-1.0, -2.0, f64::NAN, -8.0, -3.0, -5.0])
}

/// Catches a loss over the middles alone, and metrics over other tokens than their names say.
#[test]
fn gotcha_09_all_tokens_are_learned_and_the_metrics_split_them() {
    let loss = create(json!({})).unwrap().loss(&two()).unwrap();
    assert_eq!(loss.terms[0].sum, 19.0);
    assert_eq!(loss.terms[0].cotangents, [("logp".to_owned(), vec![-1.0, -1.0, 0.0, -1.0, -1.0, -1.0])]);
    for (name, expected) in [("nll/plain", 1.5), ("nll/middle", 4.0), ("rewritten", 0.5)] {
        assert_eq!(metric(&loss, name), expected, "{name}");
    }
}

/// Catches a loss in bits, or one that leaves out the sentinels.
#[test]
fn gotcha_10_uniform_logits_cost_ln_vocab_per_token() {
    let uniform = two().with_statistic("logp", Scope::TOKEN, vec![-(260.0_f64.ln()); 6]);
    let loss = create(json!({})).unwrap().loss(&uniform).unwrap();
    near("nll", loss.terms[0].sum / 5.0, 260.0_f64.ln(), 1e-15);
}

/// Catches ids that mean two things.
#[test]
fn options_that_contradict_each_other_are_refused() {
    for (given, parts) in [
        (json!({"suffix_id": 257}), ["`suffix_id`: 257", "`prefix_id`"]),
        (json!({"middle_id": 258}), ["`middle_id`: 258", "`suffix_id`"]),
        (json!({"end_id": 259}), ["`end_id`: 259", "`middle_id`"]),
        (json!({"begin_id": 257}), ["`begin_id`: 257", "`prefix_id`"]),
    ] {
        let error = create(given).err().unwrap();
        assert!(error.code == Code::OPTION && parts.iter().all(|part| error.message.contains(part)), "{error}");
    }
    for given in [json!({"begin_id": 256}), json!({"end_id": -1})] {
        assert!(create(given.clone()).is_ok(), "{given}");
    }
}
