//! Computations over a whole rollout before it is split into windows: rewards, advantages, which answers are kept, and
//! numbers for metrics only.
//!
//! ```text
//! reward[s]     = reward - overlong_penalty clamp((length - (max_length - overlong_buffer)) / overlong_buffer, 0, 1)
//! advantage[t]  = that of the token's answer, and of the segments that end there or later: [`advantages`](crate::advantages)
//! importance[t] = exp(logp - sampler.logp)       policy to sampler, both at the time of the rollout
//! ```
//!
//! (The penalty: Yu et al. 2025, DAPO, arXiv 2503.14476, equation 13. The weight: Yao et al. 2025, "Your efficient RL
//! framework secretly brings you off-policy RL training".) Baselines and deviations include every answer that
//! `prepare` gets, also those that it drops.

use crate::{
    advantages::{advantages, decoupled, of_segments},
    config::Config,
    kl::LOG_RATIO_CAP,
    settings::Settings,
};
use plugin_api::{
    batch::names::{ENDED, GROUP, REWARD, REWARD_OF, SAMPLER_LOGP},
    groups::{group_mean, group_std, sequence_length},
    prelude::*,
};
use std::{collections::BTreeSet, ops::Range};

/// The arrays that [`prepare`] returns and `loss` reads.
pub mod names {
    /// `[N]`.
    pub const ADVANTAGE: &str = "advantage";
    /// `[N]`: `logp` of the policy at the time of the rollout.
    pub const OLD_LOGP: &str = "old_logp";
    /// `[N]`: the ratio of the policy's to the sampler's probability, before it is capped.
    pub const IMPORTANCE: &str = "importance";
    /// `[S]`: the mean reward of the rollout, the same for all, as the numbers below.
    pub const REWARD: &str = "rollout.reward";
    /// `[S]`: the mean over answers of the standard deviation of their group's rewards.
    pub const SPREAD: &str = "rollout.spread";
    /// `[S]`: the share of answers in groups whose rewards are all equal.
    pub const EQUAL: &str = "rollout.equal";
    /// `[S]`: the share of truncated answers.
    pub const TRUNCATED: &str = "rollout.truncated";
}

/// Returns the arrays in [`names`], and `keep` and `request` under the options that drop answers. Values behind the
/// mask are 0.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing or of another length, and for a number that is NaN or infinite if it
/// counts.
pub fn prepare(settings: &Settings, batch: &Batch<'_>) -> Result<Batch<'static>> {
    let rollout = Rollout::of(settings, batch)?;
    let (advantage, segments) = (rollout.advantages(batch)?, rollout.segments(batch)?);
    let spread = group_std(&rollout.reward, rollout.group);
    let equal: Vec<f64> = rollout.equal().into_iter().map(|equal| f64::from(u8::from(equal))).collect();
    let truncated: Vec<f64> = rollout.ended.iter().map(|ended| 1.0 - ended).collect();
    let count = rollout.sequences.len();
    let mut prepared = Batch::new()
        .with(names::ADVANTAGE, Scope::TOKEN, rollout.tokens(|s, t| advantage[s] + segments[t]))
        .with(names::OLD_LOGP, Scope::TOKEN, rollout.tokens(|_, t| rollout.logp[t]));
    if settings.reads_sampler() {
        let sampler = numbers(batch, SAMPLER_LOGP, rollout.mask.len(), |t| rollout.mask[t] == 1.0)?;
        let ratio = |t: usize| (rollout.logp[t] - sampler[t]).clamp(-LOG_RATIO_CAP, LOG_RATIO_CAP).exp();
        prepared = prepared.with(names::IMPORTANCE, Scope::TOKEN, rollout.tokens(|_, t| ratio(t)));
    }
    for (name, values) in [
        (names::REWARD, &rollout.reward),
        (names::SPREAD, &spread),
        (names::EQUAL, &equal),
        (names::TRUNCATED, &truncated),
    ] {
        let mean = values.iter().sum::<f64>() / count.max(1) as f64;
        prepared = prepared.with(name, Scope::SEQUENCE, vec![mean; count]);
    }
    Ok(rollout.kept(prepared))
}

/// Ends the name of a reward's numbers per token.
const OF_TOKENS: &str = ".token";

/// A rollout's arrays, checked.
struct Rollout<'b> {
    settings: &'b Settings,
    /// Tokens of each answer.
    sequences: Vec<Range<usize>>,
    mask: &'b [f64],
    logp: &'b [f64],
    group: &'b [f64],
    ended: &'b [f64],
    /// Less the penalty of long answers.
    reward: Vec<f64>,
}

impl<'b> Rollout<'b> {
    fn of(settings: &'b Settings, batch: &'b Batch<'_>) -> Result<Self> {
        let offsets = batch.offsets()?;
        let (tokens, count) = (batch.tokens()?, offsets.len() - 1);
        let mask = numbers(batch, "mask", tokens, |_| true)?;
        let logp = numbers(batch, "logp", tokens, |t| mask[t] == 1.0)?;
        let sequence = |name| numbers(batch, name, count, |_| true);
        let length = sequence_length(mask, &offsets);
        let reward = sequence(REWARD)?.iter().zip(length).map(|(r, length)| r - overlong(&settings.config, length));
        Ok(Self {
            settings,
            mask,
            logp,
            group: sequence(GROUP)?,
            ended: sequence(ENDED)?,
            reward: reward.collect(),
            sequences: offsets.windows(2).map(|ends| ends[0]..ends[1]).collect(),
        })
    }

    /// `[N]` from answer and token, 0 behind the mask.
    fn tokens(&self, of: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let place = |(s, range): (usize, &Range<usize>)| range.clone().map(move |t| (s, t)).collect::<Vec<_>>();
        let places = self.sequences.iter().enumerate().flat_map(place);
        places.map(|(s, t)| if self.mask[t] == 1.0 { of(s, t) } else { 0.0 }).collect()
    }

    fn advantages(&self, batch: &Batch<'_>) -> Result<Vec<f64>> {
        let Settings { baseline, scale, config, .. } = self.settings;
        if !self.settings.decouples() {
            return Ok(advantages(baseline, scale, &self.reward, self.group));
        }
        let one = |(i, name): (usize, &String)| {
            let reward = numbers(batch, &format!("{REWARD_OF}{name}"), self.group.len(), |_| true)?;
            Ok((reward, config.reward_weights.get(i).copied().unwrap_or(1.0)))
        };
        let rewards = config.rewards.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?;
        Ok(decoupled(&rewards, self.group))
    }

    /// `[N]`: what the rewards of segments add to the advantages.
    fn segments(&self, batch: &Batch<'_>) -> Result<Vec<f64>> {
        let mut all = vec![0.0; self.mask.len()];
        for name in &self.settings.config.token_rewards {
            let name = format!("{REWARD_OF}{name}{OF_TOKENS}");
            let given = numbers(batch, &name, self.mask.len(), |t| self.mask[t] == 1.0)?;
            let own = of_segments(&self.tokens(|_, t| given[t]), &self.sequences, self.group);
            all.iter_mut().zip(own).for_each(|(all, own)| *all += own);
        }
        Ok(all)
    }

    /// `[S]`: whether all rewards of the answer's group are equal.
    fn equal(&self) -> Vec<bool> {
        // The mean of equal values is exactly their value.
        let mean = group_mean(&self.reward, self.group);
        let members = self.reward.iter().zip(mean).zip(self.group);
        let differs: BTreeSet<u64> =
            members.filter(|((reward, mean), _)| *reward != mean).map(|(_, group)| group.to_bits()).collect();
        self.group.iter().map(|group| !differs.contains(&group.to_bits())).collect()
    }

    /// Adds `keep` and `request`.
    fn kept(&self, prepared: Batch<'static>) -> Batch<'static> {
        let Config { dynamic, mask_truncated, .. } = self.settings.config;
        if !dynamic && !mask_truncated {
            return prepared;
        }
        let equal = self.equal();
        let drops = |s: usize| (dynamic && equal[s]) || (mask_truncated && self.ended[s] == 0.0);
        let keep: Vec<f64> = (0..equal.len()).map(|s| f64::from(u8::from(!drops(s)))).collect();
        let of = |drops: bool| -> BTreeSet<u64> {
            (0..equal.len()).filter(|s| (keep[*s] == 0.0) == drops).map(|s| self.group[s].to_bits()).collect()
        };
        // Prompts of which no answer is left.
        let dropped = of(true).difference(&of(false)).count();
        let prepared = prepared.with("keep", Scope::SEQUENCE, keep);
        match dynamic {
            true => prepared.with("request", Scope::BATCH, vec![dropped as f64]),
            false => prepared,
        }
    }
}

/// What an answer of that many tokens loses.
fn overlong(config: &Config, length: f64) -> f64 {
    let buffer = config.overlong_buffer as f64;
    if buffer == 0.0 {
        return 0.0;
    }
    let over = length - (config.max_length as f64 - buffer);
    config.overlong_penalty * (over / buffer).clamp(0.0, 1.0)
}

/// An array of `rows` numbers, finite where they count.
fn numbers<'b>(batch: &'b Batch<'_>, name: &str, rows: usize, counts: impl Fn(usize) -> bool) -> Result<&'b [f64]> {
    let data = batch.get(name)?;
    if data.len() != rows {
        return Err(Error::new(Code::ARRAY, format!("`{name}` holds {} values, expected {rows}", data.len())));
    }
    match (0..rows).find(|i| counts(*i) && !data[*i].is_finite()) {
        None => Ok(data),
        Some(i) => Err(Error::new(Code::ARRAY, format!("`{name}`[{i}] of the rollout is {}", data[i]))),
    }
}
