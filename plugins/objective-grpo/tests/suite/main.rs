//! GRPO compared with the laws, the numbers of other projects, and the known mistakes.

mod gotchas;
mod laws;
mod options;
mod oracle;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_grpo::{Grpo, rollout::names};
use plugin_api::prelude::*;
use serde_json::Value;
use support::{metric, near, options};

fn create(json: Value) -> Result<Grpo> {
    support::create(json)
}

/// An answer of a rollout with its tokens' statistics. The positions of its prompt are those where the mask is 0.
#[derive(Clone)]
struct Answer {
    mask: Vec<f64>,
    logp: Vec<f64>,
    reference: Vec<f64>,
    sampler: Vec<f64>,
    group: f64,
    reward: f64,
    ended: f64,
}

impl Answer {
    /// All tokens supervised; ended; reward 0; reference and sampler equal the policy.
    fn new(group: f64, logp: &[f64]) -> Self {
        let [mask, own] = [vec![1.0; logp.len()], logp.to_vec()];
        Self { mask, logp: own.clone(), reference: own.clone(), sampler: own, group, reward: 0.0, ended: 1.0 }
    }

    fn mask(self, mask: &[f64]) -> Self {
        Self { mask: mask.into(), ..self }
    }

    fn reference(self, reference: &[f64]) -> Self {
        Self { reference: reference.into(), ..self }
    }

    fn sampler(self, sampler: &[f64]) -> Self {
        Self { sampler: sampler.into(), ..self }
    }

    fn reward(self, reward: f64) -> Self {
        Self { reward, ..self }
    }

    fn cut(self) -> Self {
        Self { ended: 0.0, ..self }
    }
}

/// Answers of one token each, with these groups and rewards.
fn rewarded(rewards: &[(f64, f64)]) -> Vec<Answer> {
    rewards.iter().map(|(group, reward)| Answer::new(*group, &[-1.0]).reward(*reward)).collect()
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
        .with("sampler.logp", Scope::TOKEN, tokens(|a| &a.sampler))
        .with("group", Scope::SEQUENCE, each(|a| a.group))
        .with("reward", Scope::SEQUENCE, each(|a| a.reward))
        .with("ended", Scope::SEQUENCE, each(|a| a.ended))
        .with_statistic("logp", Scope::TOKEN, tokens(|a| &a.logp))
        .with_statistic("entropy", Scope::TOKEN, entropy)
}

/// The rollout's arrays and those from `prepare`: the first window of the first epoch. All answers are in it.
fn window(grpo: &mut Grpo, rollout: &Batch<'static>) -> Batch<'static> {
    let prepared = grpo.prepare(rollout).unwrap();
    prepared.arrays().iter().cloned().fold(rollout.clone(), Batch::with_array)
}

/// The arrays of a window as given, without a rollout.
fn with_prepared(advantage: &[f64], old_logp: &[f64], batch: Batch<'static>) -> Batch<'static> {
    let answers = batch.sequences().unwrap();
    [names::REWARD, names::SPREAD, names::EQUAL, names::TRUNCATED]
        .into_iter()
        .fold(batch, |batch, name| batch.with(name, Scope::SEQUENCE, vec![0.0; answers]))
        .with(names::ADVANTAGE, Scope::TOKEN, advantage.to_vec())
        .with(names::OLD_LOGP, Scope::TOKEN, old_logp.to_vec())
}

/// The advantages of answers of one token each.
fn advantages(given: Value, answers: &[Answer]) -> Vec<f64> {
    create(given).unwrap().prepare(&rollout(answers)).unwrap().get(names::ADVANTAGE).unwrap().to_vec()
}

fn cotangent<'l>(loss: &'l Loss, term: &str) -> &'l [f64] {
    let term = loss.terms.iter().find(|t| t.name == term).unwrap_or_else(|| panic!("no term `{term}`"));
    let found = term.cotangents.iter().find(|(name, _)| name == "logp");
    &found.unwrap_or_else(|| panic!("`{}` has no cotangent", term.name)).1
}

#[track_caller]
fn all_near(what: &str, found: &[f64], expected: &[f64], relative: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        near(&format!("{what}[{i}]"), *found, *expected, relative);
    }
}
