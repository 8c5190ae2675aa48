//! PPO compared with the laws, the numbers of other projects, and the known mistakes.

mod gotchas;
mod laws;
mod options;
mod oracle;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_ppo::{Ppo, rollout::names};
use plugin_api::prelude::*;
use serde_json::Value;
use support::{file, metric, near, options};

fn create(json: Value) -> Result<Ppo> {
    support::create(json)
}

/// An answer of a rollout with its tokens' statistics. The positions of its prompt are those where the mask is 0.
#[derive(Clone, Default)]
struct Answer {
    mask: Vec<f64>,
    logp: Vec<f64>,
    reference: Vec<f64>,
    value: Vec<f64>,
    value_end: f64,
    reward: f64,
    ended: f64,
}

impl Answer {
    /// All tokens supervised; ended; reward and value 0; the reference equals the policy.
    fn new(logp: &[f64]) -> Self {
        let (mask, value) = (vec![1.0; logp.len()], vec![0.0; logp.len()]);
        Self { mask, logp: logp.into(), reference: logp.into(), value, value_end: 0.0, reward: 0.0, ended: 1.0 }
    }

    fn mask(self, mask: &[f64]) -> Self {
        Self { mask: mask.into(), ..self }
    }

    fn reference(self, reference: &[f64]) -> Self {
        Self { reference: reference.into(), ..self }
    }

    fn value(self, value: &[f64]) -> Self {
        Self { value: value.into(), ..self }
    }

    fn reward(self, reward: f64) -> Self {
        Self { reward, ..self }
    }

    fn cut(self, value_end: f64) -> Self {
        Self { ended: 0.0, value_end, ..self }
    }
}

/// The batch that a host passes to `prepare`.
fn rollout(answers: &[Answer]) -> Batch<'static> {
    let tokens = |of: fn(&Answer) -> &Vec<f64>| -> Vec<f64> { answers.iter().flat_map(|a| of(a).clone()).collect() };
    let each = |of: fn(&Answer) -> f64| -> Vec<f64> { answers.iter().map(of).collect() };
    let ends = answers.iter().scan(0, |end, a| {
        *end += a.mask.len();
        Some(*end as f64)
    });
    let entropy = vec![0.5; tokens(|a| &a.mask).len()];
    Batch::new()
        .with("offsets", Scope::BATCH, std::iter::once(0.0).chain(ends).collect::<Vec<_>>())
        .with("mask", Scope::TOKEN, tokens(|a| &a.mask))
        .with("reference.logp", Scope::TOKEN, tokens(|a| &a.reference))
        .with("critic.value_end", Scope::SEQUENCE, each(|a| a.value_end))
        .with("reward", Scope::SEQUENCE, each(|a| a.reward))
        .with("ended", Scope::SEQUENCE, each(|a| a.ended))
        .with_statistic("logp", Scope::TOKEN, tokens(|a| &a.logp))
        .with_statistic("entropy", Scope::TOKEN, entropy)
        .with_statistic("critic.value", Scope::TOKEN, tokens(|a| &a.value))
}

/// The rollout's arrays and those from `prepare`: the first window of the first epoch.
fn window(ppo: &mut Ppo, rollout: &Batch<'static>) -> Batch<'static> {
    let prepared = ppo.prepare(rollout).unwrap();
    prepared.arrays().iter().cloned().fold(rollout.clone(), Batch::with_array)
}

/// The arrays of a window as given, without a rollout.
fn with_prepared([advantage, returns, old_logp, old_value]: [&[f64]; 4], batch: Batch<'static>) -> Batch<'static> {
    let batch = [names::KL, names::NON_SCORE_REWARD, names::SCORE, names::KL_COEF, names::EXPLAINED_VARIANCE]
        .into_iter()
        .fold(batch, |batch, name| {
            let answers = batch.sequences().unwrap();
            batch.with(name, Scope::SEQUENCE, vec![0.0; answers])
        });
    batch
        .with(names::ADVANTAGE, Scope::TOKEN, advantage.to_vec())
        .with(names::RETURN, Scope::TOKEN, returns.to_vec())
        .with(names::OLD_LOGP, Scope::TOKEN, old_logp.to_vec())
        .with(names::OLD_VALUE, Scope::TOKEN, old_value.to_vec())
}

fn cotangent<'l>(loss: &'l Loss, term: &str, statistic: &str) -> &'l [f64] {
    let term = loss.terms.iter().find(|t| t.name == term).unwrap_or_else(|| panic!("no term `{term}`"));
    let found = term.cotangents.iter().find(|(name, _)| name == statistic);
    &found.unwrap_or_else(|| panic!("`{}` has no cotangent of `{statistic}`", term.name)).1
}

#[track_caller]
fn all_near(what: &str, found: &[f64], expected: &[f64], relative: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        near(&format!("{what}[{i}]"), *found, *expected, relative);
    }
}
