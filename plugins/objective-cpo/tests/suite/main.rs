//! The losses without a reference compared with the laws, the numbers of other projects, and the known mistakes.

mod gotchas;
mod laws;
mod oracle;
#[path = "../../../../tests/plugins/pairs.rs"]
mod pairs;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_cpo::{cpo::Cpo, simpo::SimPo};
use plugin_api::prelude::*;
use serde_json::{Value, json};

/// An objective of this library by its id.
fn create(id: &str, given: Value) -> Result<Box<dyn Objective>> {
    Ok(match id {
        "simpo" => Box::new(support::create::<SimPo>(given)?),
        _ => Box::new(support::create::<Cpo>(given)?),
    })
}

/// The token log-probabilities of pairs (chosen, rejected), all supervised; in every second pair the rejected answer
/// comes first.
fn batch(pairs: &[[&[f64]; 2]]) -> Batch<'static> {
    let (mut offsets, mut group, mut side, mut logp) = (vec![0.0], Vec::new(), Vec::new(), Vec::new());
    for (number, pair) in pairs.iter().enumerate() {
        for answer in if number % 2 == 0 { [0, 1] } else { [1, 0] } {
            logp.extend_from_slice(pair[answer]);
            offsets.push(logp.len() as f64);
            group.push(100.0 - number as f64);
            side.push(1.0 - answer as f64);
        }
    }
    Batch::new()
        .with("offsets", Scope::BATCH, offsets)
        .with("mask", Scope::TOKEN, vec![1.0; logp.len()])
        .with("group", Scope::SEQUENCE, group)
        .with("side", Scope::SEQUENCE, side)
        .with_statistic("logp", Scope::TOKEN, logp)
}

/// Options of `cpo` that change what is computed.
fn of_cpo() -> [Value; 5] {
    [
        json!({}),
        json!({"label_smoothing": 0.2, "beta": 0.7, "sft_weight": 0.0}),
        json!({"loss": "hinge", "sft_per": "answer"}),
        json!({"loss": "ipo", "beta": 0.4}),
        json!({"beta": 1.5, "sft_weight": 0.3}),
    ]
}

/// Options of `simpo` that change what is computed.
fn of_simpo() -> [Value; 4] {
    [
        json!({}),
        json!({"gamma": 0.0, "beta": 8.0}),
        json!({"label_smoothing": 0.1, "sft_weight": 0.5}),
        json!({"sft_weight": 2.0, "sft_per": "answer"}),
    ]
}
