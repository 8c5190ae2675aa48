//! Objectives that drop answers and request more prompts, and groups that may be cut apart.

use super::check;
use crate::objective::{Generator, Laws};
use plugin_api::{
    Code, Error, Result,
    batch::{Batch, Scope, names},
    manifest::{DataKind, Normaliser, ObjectiveManifest, Requirements, TermSpec},
    objective::{Loss, Objective},
    options::refuse_unknown,
};

fn manifest() -> ObjectiveManifest {
    ObjectiveManifest {
        summary: "Policy gradient on groups whose rewards differ".into(),
        formula: "-advantage logp".into(),
        data: DataKind::PROMPT,
        terms: vec![TermSpec::new("policy", Normaliser::SUPERVISED_TOKENS, "Policy gradient")],
        ..Default::default()
    }
}

/// The mistake of this objective.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    CountsCalls,
    RemembersAnswers,
    NeverEnds,
    HalfAPrompt,
    /// Groups are whole in `loss`, and it says so.
    GroupsInLoss,
    /// Groups are whole in `loss`, and it says that they need not be.
    CutsGroups,
}

/// Keeps groups whose rewards differ, and requests prompts until there are eight; the state is the number of rollouts.
struct Dynamic {
    wrong: Wrong,
    rollouts: u8,
    calls: usize,
    kept: usize,
}

impl Dynamic {
    /// The reward of each answer, minus the mean of those answers to its prompt that the batch has.
    fn centred(batch: &Batch<'_>) -> Result<Vec<f64>> {
        let (reward, group) = (batch.get(names::REWARD)?, batch.get(names::GROUP)?);
        let one = |s: usize| {
            let own: Vec<f64> = (0..group.len()).filter(|o| group[*o] == group[s]).map(|o| reward[o]).collect();
            reward[s] - own.iter().sum::<f64>() / own.len() as f64
        };
        Ok((0..group.len()).map(one).collect())
    }

    fn in_loss(&self) -> bool {
        [Wrong::GroupsInLoss, Wrong::CutsGroups].contains(&self.wrong)
    }
}

impl Objective for Dynamic {
    fn requirements(&self) -> Result<Requirements> {
        let whole_groups = self.wrong == Wrong::GroupsInLoss;
        let statistics = ["logp", "sampler.logp", "sampler.entropy"];
        Ok(Requirements { whole_groups, samples: 2, ..Requirements::reading(statistics) })
    }

    fn prepare(&mut self, rollout: &Batch<'_>) -> Result<Batch<'static>> {
        let (centred, group) = (Self::centred(rollout)?, rollout.get(names::GROUP)?);
        let keep: Vec<f64> = centred.iter().map(|value| f64::from(*value != 0.0)).collect();
        let mut kept: Vec<u64> = (0..keep.len()).filter(|s| keep[*s] == 1.0).map(|s| group[s].to_bits()).collect();
        kept.sort_unstable();
        kept.dedup();
        self.calls += 1;
        let request = match self.wrong {
            Wrong::NeverEnds => 1.0,
            Wrong::HalfAPrompt => 0.5,
            Wrong::CountsCalls => 8_usize.saturating_sub(kept.len() + self.calls) as f64,
            Wrong::RemembersAnswers => 8_usize.saturating_sub(kept.len().max(self.kept)) as f64,
            _ => 8_usize.saturating_sub(kept.len()) as f64,
        };
        self.kept = self.kept.max(kept.len() + 1);
        self.rollouts = self.rollouts.wrapping_add(1);
        let made = Batch::new().with("keep", Scope::SEQUENCE, keep).with("request", Scope::BATCH, vec![request]);
        Ok(made.with("advantage", Scope::SEQUENCE, centred))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask) = (batch.tape()?, batch.mask()?);
        let advantage = match self.in_loss() {
            true => Self::centred(batch)?,
            false => batch.get("advantage")?.to_vec(),
        };
        let batch = batch.clone().with("own", Scope::SEQUENCE, advantage);
        let policy = -(batch.var(&tape, "logp")? * batch.var(&tape, "own")?.to_tokens()).masked_sum(mask);
        Loss::new().term(&tape, "policy", 1.0, policy)
    }

    fn state(&self) -> Result<Vec<u8>> {
        Ok(vec![self.rollouts])
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let [rollouts] = state else { return Err(Error::new(Code::STATE, "one byte was expected")) };
        self.rollouts = *rollouts;
        Ok(())
    }
}

/// Catches requests that depend on what an instance did before, that never end, or are not a number of prompts; and a loss that
/// needs whole groups and says that it does not.
#[test]
fn requests_are_simulated_and_groups_are_cut_where_they_may_be() {
    for (mistake, wrong, expected) in [
        ("none", Wrong::Nothing, &[][..]),
        ("a hidden counter", Wrong::CountsCalls, &["request"]),
        ("answers of an earlier call", Wrong::RemembersAnswers, &["request"]),
        ("a request that never ends", Wrong::NeverEnds, &["request"]),
        ("half a prompt", Wrong::HalfAPrompt, &["prepare", "request"]),
        ("whole groups in the loss", Wrong::GroupsInLoss, &[]),
        ("groups that are cut apart", Wrong::CutsGroups, &["additivity"]),
    ] {
        let laws = Laws::new(manifest(), move |options| {
            refuse_unknown(&[], options)?;
            Ok(Dynamic { wrong, rollouts: 0, calls: 0, kept: 0 })
        });
        check(mistake, laws.with_generator(Generator::new(5)).verify(), expected);
    }
}
