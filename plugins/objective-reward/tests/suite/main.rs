//! Reward ranking compared with the laws, the numbers of other projects, and the known mistakes.

mod laws;
mod oracle;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_reward::Ranking;
use plugin_api::prelude::*;
use serde_json::Value;
use support::{file, metric, near, options};

fn create(json: Value) -> Result<Ranking> {
    support::create(json)
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
