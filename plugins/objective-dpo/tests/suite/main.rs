//! The preference losses compared with the laws, the numbers of other projects, and the known mistakes.

mod gotchas;
mod laws;
mod options;
mod oracle;
#[path = "../../../../tests/plugins/pairs.rs"]
mod pairs;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_dpo::{
    Dpo,
    config::Config,
    losses::{LOSSES, PreferenceLoss, Shape},
    settings::Settings,
};
use plugin_api::{options::OptionSet, prelude::*};
use serde_json::{Value, json};
use support::{file, metric, near, options};

fn create(json: Value) -> Result<Dpo> {
    support::create(json)
}

fn settings(json: Value) -> Settings {
    Settings::new(Config::parse(&options(json)).unwrap()).unwrap()
}

/// The smallest option set that a loss accepts.
fn of(loss: &PreferenceLoss) -> Value {
    let smoothing = if loss.name == "exo" { 0.1 } else { 0.0 };
    json!({"loss": loss.name, "label_smoothing": smoothing})
}

fn pairwise() -> impl Iterator<Item = &'static PreferenceLoss> {
    LOSSES.iter().filter(|loss| !matches!(loss.shape, Shape::None))
}

/// An answer's token log-probabilities by policy and by reference, all supervised.
type Answer<'a> = (&'a [f64], &'a [f64]);

/// A batch of pairs (chosen, rejected), in every second pair with the rejected answer first.
fn batch(pairs: &[[Answer<'_>; 2]]) -> Batch<'static> {
    let (mut offsets, mut group, mut side) = (vec![0.0], Vec::new(), Vec::new());
    let (mut logp, mut reference) = (Vec::new(), Vec::new());
    for (number, pair) in pairs.iter().enumerate() {
        let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        for answer in order {
            logp.extend_from_slice(pair[answer].0);
            reference.extend_from_slice(pair[answer].1);
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
        .with("reference.logp", Scope::TOKEN, reference)
}
