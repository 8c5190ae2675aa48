//! Computations over a whole rollout before it is split into windows: token rewards, advantages, and numbers for metrics only.
//!
//! ```text
//! score  = reward; for a truncated answer reward - missing_eos_penalty, or -missing_eos_penalty
//! reward[t] = -kl_coef kl_penalty(logp[t] - reference.logp[t])      + score at the answer's last supervised token
//!             + reward.NAME.token[t] of each of `token_rewards`
//! return[t] = advantage[t] + critic.value[t]                        before advantages are whitened
//! ```
//!
//! (Ziegler et al. 2019, arXiv 1909.08593, section 2.2.) The score is given at the end-of-text token itself; TRL gives it one
//! position later if there is room, and needs a value there. An answer without a supervised token has no position for a score.

use crate::{
    config::Settings,
    gae::{explained_variance, gae},
};
use plugin_api::{batch::names::REWARD_OF, groups::whiten, prelude::*};
use std::ops::Range;

/// The arrays that [`prepare`] returns and `loss` reads.
pub mod names {
    /// `[N]`.
    pub const ADVANTAGE: &str = "advantage";
    /// `[N]`: the target of the critic.
    pub const RETURN: &str = "return";
    /// `[N]`: `logp` of the policy that sampled the answer.
    pub const OLD_LOGP: &str = "old_logp";
    /// `[N]`: `critic.value` at the time of the rollout.
    pub const OLD_VALUE: &str = "old_value";
    /// `[S]`: sum over tokens of k1.
    pub const KL: &str = "rollout.kl";
    /// `[S]`: sum over tokens of the penalty, as a reward.
    pub const NON_SCORE_REWARD: &str = "rollout.non_score_reward";
    /// `[S]`: the score as it enters the rewards.
    pub const SCORE: &str = "rollout.score";
    /// `[S]`: the coefficient that was used, the same for all.
    pub const KL_COEF: &str = "rollout.kl_coef";
    /// `[S]`: the share of the returns' variance that the critic explained, the same for all.
    pub const EXPLAINED_VARIANCE: &str = "rollout.explained_variance";
}

/// Per sequence from the host: the score of the answer.
pub const REWARD: &str = "reward";
/// Per sequence from the host: 1 if the answer ended with an end token, 0 if it was truncated.
pub const ENDED: &str = "ended";

/// Ends the name of a reward's numbers per token.
const OF_TOKENS: &str = ".token";

/// A rollout's arrays, checked, and the results so far.
struct Rollout<'b> {
    settings: &'b Settings,
    /// Tokens of each sequence.
    sequences: Vec<Range<usize>>,
    mask: &'b [f64],
    logp: &'b [f64],
    reference: &'b [f64],
    value: &'b [f64],
    ended: &'b [f64],
    score: Vec<f64>,
}

/// Returns the arrays in [`names`]. `kl_coef` is the penalty's present coefficient. Values behind the mask are 0.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing or of another length, and for a number that is NaN or infinite if it counts.
pub fn prepare(settings: &Settings, kl_coef: f64, rollouts: &Batch<'_>) -> Result<Batch<'static>> {
    let rollout = Rollout::of(settings, rollouts)?;
    let penalty = rollout.tokens(|t| -kl_coef * (settings.estimator.of)(rollout.log_ratio(t)));
    let mut reward = penalty.clone();
    rollout.add_scores(&mut reward);
    rollout.add_token_rewards(&mut reward, rollouts)?;
    if settings.config.whiten_rewards {
        whiten(&mut reward, rollout.mask, true);
    }
    let mut advantage = rollout.advantages(&reward, rollouts)?;
    let returns = rollout.tokens(|t| advantage[t] + rollout.value[t]);
    let explained = explained_variance(&advantage, &returns, rollout.mask);
    if settings.config.whiten_advantages {
        whiten(&mut advantage, rollout.mask, false);
    }
    let count = rollout.sequences.len();
    let per_sequence = [
        (names::KL, rollout.sums(&rollout.tokens(|t| rollout.log_ratio(t)))),
        (names::NON_SCORE_REWARD, rollout.sums(&penalty)),
        (names::KL_COEF, vec![kl_coef; count]),
        (names::EXPLAINED_VARIANCE, vec![explained; count]),
    ];
    let batch = Batch::new()
        .with(names::ADVANTAGE, Scope::TOKEN, advantage)
        .with(names::RETURN, Scope::TOKEN, returns)
        .with(names::OLD_LOGP, Scope::TOKEN, rollout.tokens(|t| rollout.logp[t]))
        .with(names::OLD_VALUE, Scope::TOKEN, rollout.tokens(|t| rollout.value[t]))
        .with(names::SCORE, Scope::SEQUENCE, rollout.score);
    Ok(per_sequence.into_iter().fold(batch, |batch, (name, data)| batch.with(name, Scope::SEQUENCE, data)))
}

impl<'b> Rollout<'b> {
    fn of(settings: &'b Settings, batch: &'b Batch<'_>) -> Result<Self> {
        let sequences: Vec<_> = batch.offsets()?.windows(2).map(|w| w[0]..w[1]).collect();
        let tokens = batch.tokens()?;
        let mask = numbers(batch, "mask", tokens, |_| true)?;
        let token = |name| numbers(batch, name, tokens, |t| mask[t] == 1.0);
        let sequence = |name| numbers(batch, name, sequences.len(), |_| true);
        let (logp, reference, value) = (token("logp")?, token("reference.logp")?, token("critic.value")?);
        let (reward, ended) = (sequence(REWARD)?, sequence(ENDED)?);
        let score = reward.iter().zip(ended).map(|(reward, ended)| score(settings, *reward, *ended)).collect();
        Ok(Self { settings, sequences, mask, logp, reference, value, ended, score })
    }

    /// `[N]`, 0 behind the mask.
    fn tokens(&self, of: impl Fn(usize) -> f64) -> Vec<f64> {
        (0..self.mask.len()).map(|t| if self.mask[t] == 1.0 { of(t) } else { 0.0 }).collect()
    }

    fn log_ratio(&self, t: usize) -> f64 {
        self.logp[t] - self.reference[t]
    }

    /// Sums of `[N]`, which is 0 behind the mask, to `[S]`.
    fn sums(&self, tokens: &[f64]) -> Vec<f64> {
        self.sequences.iter().map(|range| tokens[range.clone()].iter().sum()).collect()
    }

    fn add_scores(&self, reward: &mut [f64]) {
        for (range, score) in self.sequences.iter().zip(&self.score) {
            if let Some(last) = range.clone().rev().find(|t| self.mask[*t] == 1.0) {
                reward[last] += score;
            }
        }
    }

    fn add_token_rewards(&self, reward: &mut [f64], batch: &Batch<'_>) -> Result<()> {
        for name in &self.settings.config.token_rewards {
            let name = format!("{REWARD_OF}{name}{OF_TOKENS}");
            let given = numbers(batch, &name, self.mask.len(), |t| self.mask[t] == 1.0)?;
            reward.iter_mut().zip(self.tokens(|t| given[t])).for_each(|(reward, own)| *reward += own);
        }
        Ok(())
    }

    fn advantages(&self, reward: &[f64], batch: &Batch<'_>) -> Result<Vec<f64>> {
        let config = &self.settings.config;
        let cut = |s: usize| self.settings.bootstraps() && self.ended[s] == 0.0;
        let after = match self.settings.bootstraps() {
            true => numbers(batch, "critic.value_end", self.sequences.len(), cut)?.to_vec(),
            false => vec![0.0; self.sequences.len()],
        };
        let mut advantage = vec![0.0; self.mask.len()];
        for (s, range) in self.sequences.iter().enumerate() {
            let after = if cut(s) { after[s] } else { 0.0 };
            let arrays = [reward, self.value, self.mask];
            gae([config.gamma, config.gae_lambda], arrays, after, range.clone(), &mut advantage);
        }
        Ok(advantage)
    }
}

/// The score as it enters the rewards. A reward of exactly 0 counts as a reward.
fn score(settings: &Settings, reward: f64, ended: f64) -> f64 {
    match (ended == 0.0, settings.config.missing_eos.as_str()) {
        (false, _) => reward,
        (true, "replace") => -settings.config.missing_eos_penalty,
        (true, _) => reward - settings.config.missing_eos_penalty,
    }
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
