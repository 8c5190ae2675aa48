//! What is computed for a whole rollout before it is split into windows: of each prompt's answers the best and the
//! worst are kept.
//!
//! A prompt whose answers have equal rewards gives no pair. Among equal best or worst answers the choice depends on
//! their tokens alone.

use plugin_api::{
    batch::names::{GROUP, REFERENCE_LOGP, REWARD, TARGET},
    groups::{sequence_sum, tie_break},
    prelude::*,
};
use std::collections::BTreeMap;

/// The arrays that [`prepare`] returns and `loss` reads, `[S]`.
pub mod names {
    /// 1 for the best answer of a pair, -1 for the worst one, 0 for an answer that is not kept.
    pub const RANK: &str = "rank";
    /// The mean reward of all answers of the rollout, the same for all, as the numbers below.
    pub const REWARD: &str = "rollout.reward";
    /// The share of prompts that give a pair.
    pub const PAIRS: &str = "rollout.pairs";
    /// The KL to the reference in nats per answer, over all answers.
    pub const KL: &str = "rollout.kl";
}

/// Returns the arrays in [`names`], and `keep`.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing, and for a number that is NaN or infinite if it counts.
pub fn prepare(rollout: &Batch<'_>) -> Result<Batch<'static>> {
    let (reward, group, offsets) = (rollout.get(REWARD)?, rollout.get(GROUP)?, rollout.offsets()?);
    if let Some(s) = reward.iter().position(|reward| !reward.is_finite()) {
        return Err(Error::new(Code::ARRAY, format!("`reward`[{s}] of the rollout is {}", reward[s])));
    }
    let lots = tie_break(rollout.get(TARGET)?, &offsets);
    let rank = |s: usize| (reward[s], lots[s], s);
    let mut prompts: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    (0..reward.len()).for_each(|s| prompts.entry((group[s] + 0.0).to_bits()).or_default().push(s));
    let (mut keep, mut ranks, mut pairs) = (vec![0.0; reward.len()], vec![0.0; reward.len()], 0.0);
    for answers in prompts.values_mut() {
        answers.sort_by(|a, b| rank(*a).partial_cmp(&rank(*b)).unwrap_or(std::cmp::Ordering::Equal));
        if let (Some(worst), Some(best)) = (answers.first(), answers.last())
            && reward[*best] > reward[*worst]
        {
            (keep[*best], ranks[*best]) = (1.0, 1.0);
            (keep[*worst], ranks[*worst]) = (1.0, -1.0);
            pairs += 1.0;
        }
    }
    let mask = rollout.mask()?;
    let [policy, reference] = [rollout.get("logp")?, rollout.get(REFERENCE_LOGP)?];
    let log_ratio: Vec<f64> = policy.iter().zip(reference).map(|(policy, reference)| policy - reference).collect();
    let kl = mean(&sequence_sum(&log_ratio, mask, &offsets));
    let same = |value: f64| vec![value; reward.len()];
    Ok(Batch::new()
        .with("keep", Scope::SEQUENCE, keep)
        .with(names::RANK, Scope::SEQUENCE, ranks)
        .with(names::REWARD, Scope::SEQUENCE, same(mean(reward)))
        .with(names::PAIRS, Scope::SEQUENCE, same(pairs / prompts.len().max(1) as f64))
        .with(names::KL, Scope::SEQUENCE, same(kl)))
}

/// The places of the best and of the worst answer of each pair of a micro-batch. Answers that `prepare` did not keep
/// are skipped: the host tries a batch with all of them.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing, and a best answer without a worst one or the reverse.
pub fn pairs(batch: &Batch<'_>) -> Result<(Vec<usize>, Vec<usize>)> {
    let (group, rank) = (batch.get(GROUP)?, batch.get(names::RANK)?);
    let ranked = |wanted: f64| {
        let places = rank.iter().zip(group).enumerate().filter(move |(_, (rank, _))| **rank == wanted);
        places.map(|(s, (_, group))| ((group + 0.0).to_bits(), s)).collect::<BTreeMap<u64, usize>>()
    };
    let (best, worst) = (ranked(1.0), ranked(-1.0));
    if !best.keys().eq(worst.keys()) {
        let why = "a best and a worst answer to one prompt are not in one micro-batch";
        return Err(Error::new(Code::ARRAY, why));
    }
    Ok((best.into_values().collect(), worst.into_values().collect()))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
