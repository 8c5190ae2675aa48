//! Reward ranking compared with the laws, the numbers of other projects, and the known mistakes.

mod laws;
mod oracle;

use objective_reward::{Ranking, config::Config};
use plugin_api::{options::OptionSet, prelude::*};
use serde_json::Value;

fn create(json: Value) -> Result<Ranking> {
    Ranking::create(Config::parse(&json.as_object().cloned().unwrap_or_default())?)
}

/// Pairs of scores (chosen, rejected), in every second pair with the rejected answer first. The tokens do not matter.
fn batch(chosen: &[f64], rejected: &[f64], margin: Option<&[f64]>) -> Batch<'static> {
    let both: Vec<(usize, f64)> =
        (0..chosen.len()).flat_map(|p| if p % 2 == 0 { [(p, 1.0), (p, 0.0)] } else { [(p, 0.0), (p, 1.0)] }).collect();
    let per_answer = |of: &dyn Fn(usize, f64) -> f64| both.iter().map(|(p, side)| of(*p, *side)).collect::<Vec<f64>>();
    let tokens = both.len();
    let batch = Batch::new()
        .with("offsets", Scope::BATCH, (0..=tokens).map(|n| n as f64).collect::<Vec<_>>())
        .with("mask", Scope::TOKEN, vec![1.0; tokens])
        .with("group", Scope::SEQUENCE, per_answer(&|p, _| 50.0 - p as f64))
        .with("side", Scope::SEQUENCE, per_answer(&|_, side| side))
        .with_statistic(
            "score",
            Scope::SEQUENCE,
            per_answer(&|p, side| if side == 1.0 { chosen[p] } else { rejected[p] }),
        );
    match margin {
        Some(margin) => batch.with("column.margin", Scope::SEQUENCE, per_answer(&|p, _| margin[p])),
        None => batch,
    }
}

/// A metric's number over the batch.
fn metric(loss: &Loss, name: &str) -> f64 {
    let part = loss.metrics.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("no metric `{name}`"));
    if ["score/min", "score/max"].contains(&name) { part.value } else { part.value / part.weight }
}

#[track_caller]
fn near(what: &str, found: f64, expected: f64, relative: f64) {
    let allowed = relative * expected.abs() + 1e-11;
    assert!((found - expected).abs() <= allowed, "{what}: {found}, expected {expected}");
}
