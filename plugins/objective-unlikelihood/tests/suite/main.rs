//! Unlikelihood training compared with the laws, its formula by hand, and the known mistakes.

mod compose;
mod gotchas;
mod laws;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_unlikelihood::Unlikelihood;
use plugin_api::{batch::Array, prelude::*};
use serde_json::{Value, json};

fn create(given: Value) -> Result<Unlikelihood> {
    support::create(given)
}

/// Options that change what is computed.
fn all_options() -> [Value; 3] {
    [json!({"candidates": 3}), json!({"candidates": 2, "alpha": 0.5}), json!({"candidates": 5, "alpha": 0.0})]
}

/// A batch of one sequence: the targets' log-probabilities, and per token two candidates with their log-probabilities
/// and whether they count.
fn batch(tokens: &[(f64, [f64; 2], [f64; 2])]) -> Batch<'static> {
    let wide = |name: &'static str, differentiable, data: Vec<f64>| Array {
        name: name.into(),
        scope: Scope::TOKEN,
        differentiable,
        cols: 2,
        data: data.into(),
    };
    Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, tokens.len() as f64])
        .with("mask", Scope::TOKEN, vec![1.0; tokens.len()])
        .with_statistic("logp", Scope::TOKEN, tokens.iter().map(|t| t.0).collect::<Vec<_>>())
        .with_array(wide("candidates", true, tokens.iter().flat_map(|t| t.1).collect()))
        .with_array(wide("negative", false, tokens.iter().flat_map(|t| t.2).collect()))
}

/// Catches candidates that no context can have, for each of which a backend computes a number, and a weight without a limit.
#[test]
fn options_have_limits_that_the_host_knows() {
    let requirements = create(json!({"candidates": 64})).unwrap().requirements().unwrap();
    assert_eq!(requirements.least_context, Some(GivenNumber::new(64, "candidates")));
    for wrong in [json!({"alpha": 1e9}), json!({"alpha": f64::MAX}), json!({"candidates": 5000})] {
        assert!(create(wrong.clone()).is_err(), "{wrong}");
    }
}
