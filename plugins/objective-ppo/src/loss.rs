//! Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), for language models as in Ziegler et al. 2019 (arXiv
//! 1909.08593) and Huang et al. 2024 ("The N+ implementation details", arXiv 2403.17031). For a supervised token of an answer,
//! with the policy and critic at the time of the rollout as the old ones,
//!
//! ```text
//! ratio   = exp(clamp(logp - old_logp, -20, 20))
//! policy  = max(-ratio advantage, -clamp(ratio, 1 - clip_range, 1 + clip_range) advantage)          equation 7, negated
//! value   = 1/2 max((v - return)^2, (clamp(v, old_value -+ value_clip_range) - return)^2)           v = critic.value
//! entropy = -entropy of the policy's distribution                                                    equation 9, negated
//! total   = policy + value_coef value + entropy_coef entropy
//! ```
//!
//! each summed here and divided, by the host, by the supervised tokens of the optimizer window (TRL's `masked_mean`). All are
//! `[N]`, aligned to the target: `v` is the value of the state *before* the token. `advantage`, `return`, `old_logp` and
//! `old_value` come from [`rollout`], which also has the KL penalty, the score and generalised advantage estimation. A masked
//! token adds nothing and its cotangent is exactly 0.
//!
//! The KL to the reference enters only through the rewards. TRL 0.11 gave a batch with a mean ratio above 10 no gradient; here
//! only each token's clamp applies, because that mean would couple the batch.

use crate::{config::Settings, kl::LOG_RATIO_CAP, rollout, rollout::names};
use plugin_api::prelude::*;

/// The clipped surrogate.
pub const POLICY: &str = "policy";
/// The critic's error.
pub const VALUE: &str = "value";
/// The entropy bonus.
pub const ENTROPY: &str = "entropy";

/// Terms, cotangents and metrics of a micro-batch.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing; [`Code::SHAPE`] for lengths that disagree and a mask that is not 0 or 1.
pub fn loss(settings: &Settings, batch: &Batch<'_>) -> Result<Loss> {
    let (tape, config) = (batch.tape()?, &settings.config);
    let mask = Mask::from(batch.mask()?);
    let moved = batch.var(&tape, "logp")? - batch.var(&tape, names::OLD_LOGP)?;
    let log_ratio = moved.clamp(-LOG_RATIO_CAP, LOG_RATIO_CAP);
    let policy = policy(log_ratio.exp(), batch.var(&tape, names::ADVANTAGE)?, config.clip_range);
    let (old_value, returns) = (batch.var(&tape, names::OLD_VALUE)?, batch.var(&tape, names::RETURN)?);
    let value = value(batch.var(&tape, "critic.value")?, old_value, returns, config.value_clip_range);
    let mut loss = Loss::new().term(&tape, POLICY, 1.0, policy.greater().masked_sum(&mask))?.term(
        &tape,
        VALUE,
        config.value_coef,
        0.5 * value.greater().masked_sum(&mask),
    )?;
    let mut figures = Figures { tokens: mask.count() as f64, mask, metrics: Loss::new() };
    if settings.reads_entropy() {
        let entropy = batch.var(&tape, "entropy")?;
        if config.entropy_coef > 0.0 {
            loss = loss.term(&tape, ENTROPY, config.entropy_coef, -entropy.masked_sum(&figures.mask))?;
        }
        figures.mean(metric::ENTROPY, entropy)?;
    }
    figures.of_policy(log_ratio, &policy)?;
    figures.of_value(&value)?;
    figures.of_rollout(batch)?;
    loss.metrics = figures.metrics.metrics;
    Ok(loss)
}

/// A loss per token and its clipped form; the greater is used.
struct Clipped<'t> {
    plain: Var<'t>,
    clipped: Option<Var<'t>>,
}

impl<'t> Clipped<'t> {
    fn greater(&self) -> Var<'t> {
        self.clipped.map_or(self.plain, |clipped| self.plain.max(clipped))
    }
}

fn policy<'t>(ratio: Var<'t>, advantage: Var<'t>, range: f64) -> Clipped<'t> {
    let clipped = -(ratio.clamp(1.0 - range, 1.0 + range) * advantage);
    Clipped { plain: -(ratio * advantage), clipped: Some(clipped) }
}

/// Squares, without the factor 1/2. A range of 0 clips nothing.
fn value<'t>(value: Var<'t>, old: Var<'t>, returns: Var<'t>, range: f64) -> Clipped<'t> {
    let clipped = || (old + (value - old).clamp(-range, range) - returns).square();
    Clipped { plain: (value - returns).square(), clipped: (range > 0.0).then(clipped) }
}

/// Metrics, collected as they are computed; all are means over supervised tokens or over answers.
struct Figures {
    mask: Mask,
    tokens: f64,
    metrics: Loss,
}

impl Figures {
    fn add(&mut self, name: &str, sum: f64, weight: f64) {
        self.metrics = std::mem::take(&mut self.metrics).metric(name, sum, weight);
    }

    fn mean(&mut self, name: &str, tokens: Var<'_>) -> Result<()> {
        self.add(name, tokens.masked_sum(&self.mask).scalar()?, self.tokens);
        Ok(())
    }

    /// Share of the tokens whose clipped form is the greater one, so that they have no gradient.
    fn clip_fraction(&mut self, name: &str, loss: &Clipped<'_>) {
        if let Some(clipped) = loss.clipped {
            let share = clipped.gt(loss.plain).and(&self.mask).count();
            self.add(name, share as f64, self.tokens);
        }
    }

    fn of_policy(&mut self, log_ratio: Var<'_>, policy: &Clipped<'_>) -> Result<()> {
        let ratio = log_ratio.exp();
        self.mean(metric::APPROX_KL, 0.5 * log_ratio.square())?;
        self.clip_fraction(metric::CLIP_FRACTION, policy);
        self.mean(metric::RATIO, ratio)?;
        self.mean(metric::RATIO_VARIANCE, (ratio - 1.0).square())
    }

    fn of_value(&mut self, value: &Clipped<'_>) -> Result<()> {
        self.clip_fraction(metric::VALUE_CLIP_FRACTION, value);
        self.mean(metric::VALUE_ERROR, value.plain)
    }

    /// Metrics from the arrays of `prepare` and from the host's arrays for each answer.
    fn of_rollout(&mut self, batch: &Batch<'_>) -> Result<()> {
        let sum = |name: &str| Ok::<f64, Error>(batch.get(name)?.iter().sum());
        let (score, non_score) = (sum(names::SCORE)?, sum(names::NON_SCORE_REWARD)?);
        let answers = batch.sequences()? as f64;
        for (name, sum) in [
            (metric::KL, sum(names::KL)?),
            // Behind the mask `prepare` returned zeros.
            (metric::SURPRISE, -sum(names::OLD_LOGP)?),
            (metric::NON_SCORE_REWARD, non_score),
            (metric::RLHF_REWARD, score + non_score),
            (metric::SCORES, score),
            (metric::EXPLAINED_VARIANCE, sum(names::EXPLAINED_VARIANCE)?),
            (metric::LENGTH, self.tokens),
            (metric::ENDED, sum(rollout::ENDED)?),
            (metric::KL_COEF, sum(names::KL_COEF)?),
        ] {
            self.add(name, sum, answers);
        }
        Ok(())
    }
}

/// Names of the metrics, TRL's where it has one.
pub mod metric {
    /// KL to the reference per answer.
    pub const KL: &str = "objective/kl";
    /// Negative log-probability per answer.
    pub const SURPRISE: &str = "objective/entropy";
    /// The penalty per answer, as a reward.
    pub const NON_SCORE_REWARD: &str = "objective/non_score_reward";
    /// Score and penalty.
    pub const RLHF_REWARD: &str = "objective/rlhf_reward";
    /// The score as it enters the rewards.
    pub const SCORES: &str = "objective/scores";
    /// Entropy of the policy's distribution, per token.
    pub const ENTROPY: &str = "policy/entropy_avg";
    /// KL to the policy that sampled the answers.
    pub const APPROX_KL: &str = "policy/approxkl_avg";
    /// Clip fraction of the ratio.
    pub const CLIP_FRACTION: &str = "policy/clipfrac_avg";
    /// Clip fraction of the value.
    pub const VALUE_CLIP_FRACTION: &str = "val/clipfrac_avg";
    /// Ratio of new to old probabilities.
    pub const RATIO: &str = "val/ratio";
    /// Its squared distance from 1.
    pub const RATIO_VARIANCE: &str = "val/ratio_var";
    /// Squared error of the critic.
    pub const VALUE_ERROR: &str = "value/error";
    /// Explained variance of the returns by the rollout's values.
    pub const EXPLAINED_VARIANCE: &str = "value/explained_variance";
    /// Supervised tokens per answer.
    pub const LENGTH: &str = "length/mean";
    /// Share of answers that ended with an end token.
    pub const ENDED: &str = "ended";
    /// Coefficient of the penalty.
    pub const KL_COEF: &str = "kl_coef";
}
