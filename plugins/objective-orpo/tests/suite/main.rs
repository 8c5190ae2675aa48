//! Odds-ratio preference optimisation compared with the laws, the numbers of other projects, and the known mistakes.

mod compose;
mod gotchas;
mod laws;
mod oracle;
#[path = "../../../../tests/plugins/pairs.rs"]
mod pairs;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_orpo::Orpo;
use plugin_api::prelude::*;
use serde_json::{Value, json};

fn create(given: Value) -> Result<Orpo> {
    support::create(given)
}

/// Options that change what is computed.
fn all_options() -> [Value; 3] {
    [json!({}), json!({"beta": 0.7}), json!({"nll": "row", "beta": 1.5})]
}

/// A pair: a chosen answer of two tokens after a prompt of one, and a rejected answer of one token after the same
/// prompt. The mask is that of `nll = "row"`; `answer` marks the answers.
fn pair(chosen: [f64; 2], rejected: f64) -> Batch<'static> {
    Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 3.0, 5.0])
        .with("mask", Scope::TOKEN, vec![1.0, 1.0, 1.0, 0.0, 1.0])
        .with("answer", Scope::TOKEN, vec![0.0, 1.0, 1.0, 0.0, 1.0])
        .with("group", Scope::SEQUENCE, vec![4.0, 4.0])
        .with("side", Scope::SEQUENCE, vec![1.0, 0.0])
        .with_statistic("logp", Scope::TOKEN, vec![-7.0, chosen[0], chosen[1], f64::NAN, rejected])
}
