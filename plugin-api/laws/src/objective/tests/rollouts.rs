//! Objectives on rollouts: `prepare`, state, and the mistakes that only they can have.

use super::check;
use crate::objective::{Generator, Laws};
use plugin_api::{
    Code, Error, Result,
    batch::{Batch, Scope},
    manifest::{DataKind, MetricSpec, Normaliser, ObjectiveManifest, Reduction, Requirements, TermSpec},
    objective::{Loss, Objective, Verdict},
    options::refuse_unknown,
};

fn manifest() -> ObjectiveManifest {
    ObjectiveManifest {
        summary: "Policy gradient with an adaptive penalty".into(),
        formula: "-advantage ratio, clipped".into(),
        data: DataKind::PROMPT,
        terms: vec![
            TermSpec::new("policy", Normaliser::SUPERVISED_TOKENS, "Clipped"),
            TermSpec::new("value", Normaliser::SUPERVISED_TOKENS, "Squared error"),
        ],
        metrics: vec![MetricSpec::new("kl", Reduction::MEAN, "Moved since the rollout")],
        ..Default::default()
    }
}

/// The mistake of this objective.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    WhitensAll,
    ForgetsState,
    HasNoStateAtFirst,
    TakesAnyState,
    OutOfRangeVerdict,
}

const AT_FIRST: f64 = 0.1;

/// A small PPO: the advantage is the reward minus penalty and value, whitened over the rollout's supervised tokens.
struct Small {
    wrong: Wrong,
    coefficient: f64,
}

impl Small {
    fn advantages(&self, rollouts: &Batch<'_>) -> Result<Vec<f64>> {
        let (mask, logp, reference) = (rollouts.mask()?, rollouts.get("logp")?, rollouts.get("reference.logp")?);
        let (value, reward) = (rollouts.get("critic.value")?, rollouts.get("reward")?);
        let counts = |n: usize| mask[n] == 1.0 || self.wrong == Wrong::WhitensAll;
        let mut advantage = vec![0.0; mask.len()];
        for (s, bounds) in rollouts.offsets()?.windows(2).enumerate() {
            for n in (bounds[0]..bounds[1]).filter(|n| counts(*n)) {
                advantage[n] = reward[s] - self.coefficient * (logp[n] - reference[n]) - value[n];
            }
        }
        let number = (0..mask.len()).filter(|n| counts(*n)).count().max(1) as f64;
        let mean = advantage.iter().sum::<f64>() / number;
        Ok((0..mask.len()).map(|n| if counts(n) { advantage[n] - mean } else { 0.0 }).collect())
    }
}

impl Objective for Small {
    fn requirements(&self) -> Result<Requirements> {
        let statistics = ["logp", "reference.logp", "critic.value"].map(str::to_owned).to_vec();
        Ok(Requirements { statistics, ..Default::default() })
    }

    fn prepare(&mut self, rollouts: &Batch<'_>) -> Result<Batch<'static>> {
        self.coefficient *= 1.01;
        Ok(Batch::new().with("advantage", Scope::TOKEN, self.advantages(rollouts)?).with(
            "old_logp",
            Scope::TOKEN,
            rollouts.get("logp")?.to_vec(),
        ))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask) = (batch.tape()?, batch.mask()?);
        let (logp, advantage) = (batch.var(&tape, "logp")?, batch.var(&tape, "advantage")?);
        let log_ratio = logp - batch.var(&tape, "old_logp")?;
        let ratio = log_ratio.exp();
        let policy = -(ratio * advantage).min(ratio.clamp(0.8, 1.2) * advantage).masked_sum(mask);
        let value = (batch.var(&tape, "critic.value")? - advantage).square().masked_sum(mask);
        let kl = -log_ratio.masked_sum(mask).scalar()?;
        let loss = Loss::new().term(&tape, "policy", 1.0, policy)?.term(&tape, "value", self.coefficient, value)?;
        Ok(loss.metric("kl", kl, mask.iter().sum()))
    }

    fn after_step(&mut self, metrics: &[(String, f64)]) -> Result<Verdict> {
        let kl = metrics.iter().find(|(name, _)| name == "kl").map_or(0.0, |(_, kl)| *kl);
        self.coefficient *= 1.0 + 0.1 * (kl - 0.5);
        Ok(if self.wrong == Wrong::OutOfRangeVerdict { Verdict(9) } else { Verdict::CONTINUE })
    }

    fn state(&self) -> Result<Vec<u8>> {
        let is_first = self.coefficient == AT_FIRST;
        Ok(match self.wrong {
            Wrong::ForgetsState => Vec::new(),
            Wrong::HasNoStateAtFirst if is_first => Vec::new(),
            _ => self.coefficient.to_le_bytes().to_vec(),
        })
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        match state.try_into() {
            Ok(bytes) => self.coefficient = f64::from_le_bytes(bytes),
            Err(_) if self.wrong == Wrong::TakesAnyState || state.is_empty() => {}
            Err(_) => return Err(Error::new(Code::STATE, format!("{} bytes, expected 8", state.len()))),
        }
        Ok(())
    }
}

#[test]
fn an_objective_with_rollouts_and_state_passes_and_its_mistakes_are_detected() {
    for (mistake, wrong, expected) in [
        ("none", Wrong::Nothing, &[][..]),
        ("gotcha_30: whitened over all tokens", Wrong::WhitensAll, &["masked"]),
        ("gotcha_35: state forgotten", Wrong::ForgetsState, &["state"]),
        ("a state only after the first step", Wrong::HasNoStateAtFirst, &["state"]),
        ("any bytes taken for a state", Wrong::TakesAnyState, &["state"]),
        ("a verdict that means nothing", Wrong::OutOfRangeVerdict, &["state"]),
    ] {
        let laws = Laws::new(manifest(), move |options| {
            refuse_unknown(&[], options)?;
            Ok(Small { wrong, coefficient: AT_FIRST })
        });
        let generator = Generator::new(11).with_array("reward", Scope::SEQUENCE, -1.0..=1.0);
        check(mistake, laws.with_generator(generator).verify(), expected);
    }
}

/// Reads arrays of single rewards that its requirements name.
struct Named;

impl Objective for Named {
    fn requirements(&self) -> Result<Requirements> {
        let reward_names = ["style", "style.words", "style.token"].map(str::to_owned).to_vec();
        Ok(Requirements { reward_names, ..Requirements::reading(["logp"]) })
    }

    fn prepare(&mut self, rollouts: &Batch<'_>) -> Result<Batch<'static>> {
        let (style, words) = (rollouts.get("reward.style")?, rollouts.get("reward.style.words")?);
        let both: Vec<f64> = style.iter().zip(words).map(|(style, words)| style + words).collect();
        let tokens = rollouts.get("reward.style.token")?.to_vec();
        Ok(Batch::new().with("both", Scope::SEQUENCE, both).with("own", Scope::TOKEN, tokens))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask) = (batch.tape()?, batch.mask()?);
        let advantage = batch.var(&tape, "both")?.to_tokens() + batch.var(&tape, "own")?;
        Loss::new().term(&tape, "policy", 1.0, -(batch.var(&tape, "logp")? * advantage).masked_sum(mask))
    }
}

/// Catches laws without the arrays that the requirements name, so that no objective that reads a part of a reward could pass them.
#[test]
fn arrays_of_single_rewards_that_an_objective_requires_are_there() {
    let manifest = ObjectiveManifest {
        terms: vec![TermSpec::new("policy", Normaliser::SUPERVISED_TOKENS, "REINFORCE")],
        metrics: Vec::new(),
        ..manifest()
    };
    let laws = Laws::new(manifest, |options| {
        refuse_unknown(&[], options)?;
        Ok(Named)
    });
    check("named rewards", laws.verify(), &[]);
}
