//! The values of single statistics.

use plugin_api::{batch::Batch, manifest::StatisticSpec};
use telos_random::SplitMix64;

/// The content of the statistics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// New random values, drawn by this number.
    Random(u64),
    /// Trained models: the given values, moved a little, drawn by this number. Frozen models: the given values.
    Near(u64),
    /// Trained models: the given values, moved a little, drawn by this number, and all shifted by that amount. Frozen models: the
    /// given values.
    Shifted(u64, f64),
    /// 0 everywhere.
    Zero,
    /// Those of equal models whose logits are all 0 and whose scalar heads return 0.
    Uniform,
}

/// The value that a drawn one should be near: for another model's log-probability the policy's; for the mean logit the
/// log-sum-exp.
pub(super) fn base_of(batch: &Batch<'_>, name: &str, i: usize) -> Option<f64> {
    let (role, base) = name.rsplit_once('.').map_or(("", name), |(role, base)| (role, base));
    let near = match (role, base) {
        ("", "logp") => return None,
        (_, "logp") => "logp".to_owned(),
        ("", "mean_logit") => "lse".to_owned(),
        (role, "mean_logit") => format!("{role}.lse"),
        _ => return None,
    };
    batch.find(&near)?.data.get(i).copied()
}

/// Draws the value of a statistic; `near` is what it should be near.
pub(super) fn draw(form: &StatisticSpec, near: Option<f64>, rng: &mut SplitMix64) -> f64 {
    match (form.name, form.range, near) {
        ("logp", _, Some(policy)) => within(form, policy + rng.between(-0.8, 0.8)),
        ("lse", ..) => rng.between(1.0, 5.0),
        ("mean_logit", _, near) => near.unwrap_or(3.0) - rng.between(1.0, 4.0),
        (_, (_, 0.0), _) => rng.between(-4.0, -0.05),
        (_, (0.0, 1.0), _) => f64::from(rng.unit() < 0.5),
        (_, (0.0, _), _) => rng.between(0.05, 3.0),
        _ => rng.between(-2.0, 2.0),
    }
}

/// Log-probabilities stay at most 0, entropies and divergences at least 0.
pub(super) fn within(form: &StatisticSpec, value: f64) -> f64 {
    match form.range {
        (_, 0.0) => value.min(-0.01 + 1e-3 * value.min(0.0)),
        (0.0, f64::INFINITY) => value.abs().max(0.01),
        _ => value,
    }
}
