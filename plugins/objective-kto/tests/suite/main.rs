//! Kahneman-Tversky optimisation compared with the laws, the numbers of other projects, and the known mistakes.

mod compose;
mod gotchas;
mod laws;
mod oracle;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_kto::Kto;
use plugin_api::prelude::*;
use serde_json::{Value, json};

fn create(given: Value) -> Result<Kto> {
    support::create(given)
}

/// Options that change what is computed.
fn all_options() -> [Value; 4] {
    [
        json!({}),
        json!({"beta": 0.7, "desirable_weight": 0.5, "undesirable_weight": 2.0}),
        json!({"loss": "apo-zero-unpaired"}),
        json!({"loss": "apo-zero-unpaired", "beta": 2.0, "undesirable_weight": 0.3}),
    ]
}

/// Sequences of one supervised token: its log-ratio to the reference, whether it is desirable, whether it is
/// mismatched.
fn batch(sequences: &[(f64, f64, f64)]) -> Batch<'static> {
    let of = |value: fn(&(f64, f64, f64)) -> f64| sequences.iter().map(value).collect::<Vec<f64>>();
    Batch::new()
        .with("offsets", Scope::BATCH, (0..=sequences.len()).map(|s| s as f64).collect::<Vec<_>>())
        .with("mask", Scope::TOKEN, vec![1.0; sequences.len()])
        .with("side", Scope::SEQUENCE, of(|s| s.1))
        .with("mismatched", Scope::SEQUENCE, of(|s| s.2))
        .with_statistic("logp", Scope::TOKEN, of(|s| s.0 - 9000.0))
        .with("reference.logp", Scope::TOKEN, vec![-9000.0; sequences.len()])
}
