//! Advantages of answers from their rewards, `[S]` to `[S]`.
//!
//! ```text
//! advantage[s] = (reward[s] - baseline[s]) / (deviation[s] + 1e-4)
//! ```
//!
//! | method | baseline | scale |
//! |---|---|---|
//! | GRPO (Shao et al. 2024, arXiv 2402.03300) | group | group |
//! | Dr. GRPO (Liu et al. 2025, arXiv 2503.20783) | group | none |
//! | RLOO (Ahmadian et al. 2024, arXiv 2402.14740) | leave-one-out | none |
//! | REINFORCE++ (Hu 2025, arXiv 2501.03262) | batch | batch; its variant with a group baseline: group, batch |
//!
//! Process supervision (Shao et al. 2024, section 4.1.3) adds to the advantage of a token, `[N]`, the rewards of the segments that end there
//! or later in its answer, each normalised over all segments of its group:
//!
//! ```text
//! segment[u]    = (reward[u] - mean over the group's segments) / (their deviation + 1e-4)
//! advantage[t] += sum over the answer's segments u >= t of segment[u]
//! ```
//!
//! Deviations have Bessel's correction and are those of the rewards, not of the differences; a divisor of `none` is
//! exactly 1. Answers with equal rewards have an advantage of exactly 0 under the group's baselines.

use plugin_api::groups::{group_mean, group_std, leave_one_out};
use std::ops::Range;

/// Keeps a quotient finite if all rewards are equal; as in TRL.
const LEAST_DEVIATION: f64 = 1e-4;

/// A row of a table: a number per answer from rewards and groups, `[S]` each.
#[derive(Debug)]
pub struct Row {
    /// Its name in the option.
    pub name: &'static str,
    /// Computes it.
    pub of: fn(&[f64], &[f64]) -> Vec<f64>,
}

/// What is subtracted from a reward.
pub const BASELINES: &[Row] = &[
    Row { name: "group", of: group_mean },
    Row { name: "leave-one-out", of: leave_one_out },
    Row { name: "batch", of: |reward, _| group_mean(reward, &one_group(reward)) },
    Row { name: "none", of: |reward, _| vec![0.0; reward.len()] },
];

/// What divides the difference.
pub const SCALES: &[Row] = &[
    Row { name: "group", of: |reward, group| at_least(group_std(reward, group)) },
    Row { name: "batch", of: |reward, _| at_least(group_std(reward, &one_group(reward))) },
    Row { name: "none", of: |reward, _| vec![1.0; reward.len()] },
];

/// The advantages of `reward` by a baseline and a scale.
pub fn advantages(baseline: &Row, scale: &Row, reward: &[f64], group: &[f64]) -> Vec<f64> {
    let (baseline, scale) = ((baseline.of)(reward, group), (scale.of)(reward, group));
    reward.iter().zip(baseline).zip(scale).map(|((reward, baseline), scale)| (reward - baseline) / scale).collect()
}

/// The advantages of several rewards, each with its weight: normalised by group, added, and normalised over the rollout
/// (Liu et al. 2026, GDPO, arXiv 2601.05242, as TRL 1.16 computes it).
pub fn decoupled(rewards: &[(&[f64], f64)], group: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; group.len()];
    for (reward, weight) in rewards {
        let own = advantages(&BASELINES[0], &SCALES[0], reward, group);
        sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += weight * own);
    }
    advantages(&BASELINES[2], &SCALES[1], &sum, group)
}

/// What process supervision adds to the advantages of tokens, `[N]`, from rewards of segments: numbers other than 0, at the tokens where
/// segments end. `answers` are the tokens of each answer, `group` is `[S]`.
pub fn of_segments(reward: &[f64], answers: &[Range<usize>], group: &[f64]) -> Vec<f64> {
    let segments = |(s, tokens): (usize, &Range<usize>)| -> Vec<(usize, usize)> {
        tokens.clone().filter(|t| reward[*t] != 0.0).map(|t| (s, t)).collect()
    };
    let segments: Vec<(usize, usize)> = answers.iter().enumerate().flat_map(segments).collect();
    let rewards: Vec<f64> = segments.iter().map(|(_, t)| reward[*t]).collect();
    let groups: Vec<f64> = segments.iter().map(|(s, _)| group[*s]).collect();
    let mut sums = vec![0.0; reward.len()];
    for ((_, t), own) in segments.iter().zip(advantages(&BASELINES[0], &SCALES[0], &rewards, &groups)) {
        sums[*t] = own;
    }
    for tokens in answers {
        let mut after = 0.0;
        for t in tokens.clone().rev() {
            after += sums[t];
            sums[t] = after;
        }
    }
    sums
}

/// The whole rollout as a group.
fn one_group(reward: &[f64]) -> Vec<f64> {
    vec![0.0; reward.len()]
}

fn at_least(deviation: Vec<f64>) -> Vec<f64> {
    deviation.into_iter().map(|deviation| deviation + LEAST_DEVIATION).collect()
}
