//! Group-relative policy optimisation (Shao et al. 2024, DeepSeekMath, arXiv 2402.03300, equation 3) and its kin. For
//! the supervised token t of an answer, with the policy at the time of the rollout as the old one,
//!
//! ```text
//! ratio[t]  = exp(clamp(logp - old_logp, -20, 20))                                level = "token"
//!           = exp(mean of these clamped log-ratios over the answer's tokens)      level = "sequence": GSPO
//! policy[t] = weight[t] surrogate(ratio[t], advantage[t])                         the table in `surrogates`; by default
//!             -min(ratio advantage, clamp(ratio, 1 - clip_low, 1 + clip_high) advantage)
//! kl[t]     = exp(-d) - 1 + d,  d = logp - reference.logp                         k3; k1, k2: the table in `kl`
//!             times ratio[t] with `kl_weighted`
//! total     = policy + kl_coef kl
//! ```
//!
//! `logp`, `old_logp`, `reference.logp`, `advantage`, `weight` and `mask` are `[N]`, aligned to the target; the arrays
//! that do not depend on the present policy come from [`rollout`]. A masked token adds nothing and its cotangent is
//! exactly 0. `weight` is 1, or the importance weight against the sampler: `min(importance, cap)` (`importance =
//! "truncate"`), or `importance`, and 0 above the cap (`"mask"`). The KL has no such weight.
//!
//! What this file sums over a micro-batch and by what the host divides it, counted over the optimizer window:
//!
//! | `normaliser` | sum | divided by | |
//! |---|---|---|---|
//! | sequence | each answer's mean over its supervised tokens | answers | GRPO, GSPO |
//! | token | supervised tokens | supervised tokens | DAPO (Yu et al. 2025, arXiv 2503.14476); TRL's `bnpo` |
//! | constant | supervised tokens | answers times `max_length` | Dr. GRPO (Liu et al. 2025, arXiv 2503.20783) |
//!
//! Answers that `prepare` dropped, by `mask_truncated` or `dynamic`, are in neither. Tokens whose weight is 0 stay in
//! the denominator.
//!
//! GSPO (Zheng et al. 2025, arXiv 2507.18071, equation 5) needs no stop-gradient as long as all tokens of an answer
//! have the same advantage: its token form, equation 13, then has the same gradient.

use crate::{
    kl::LOG_RATIO_CAP,
    rollout::names,
    settings::{KL, POLICY, Settings},
    surrogates::Tokens,
};
use plugin_api::prelude::*;

/// The capped ratio that `loss = "cispo"` holds constant.
pub const HELD_RATIO: &str = "held_ratio";

/// Terms, cotangents and metrics of a micro-batch.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing; [`Code::SHAPE`] for lengths that disagree and a mask that is not 0 or
/// 1.
pub fn loss(settings: &Settings, batch: &Batch<'_>) -> Result<Loss> {
    let (tape, config) = (batch.tape()?, &settings.config);
    let mask = Mask::from(batch.mask()?);
    let (logp, advantage) = (batch.var(&tape, "logp")?, batch.var(&tape, names::ADVANTAGE)?);
    let log_ratio = (logp - batch.var(&tape, names::OLD_LOGP)?).clamp(-LOG_RATIO_CAP, LOG_RATIO_CAP);
    let ratio = match settings.by_sequence() {
        true => log_ratio.seq_mean(&mask).exp().to_tokens(),
        false => log_ratio.exp(),
    };
    let held = ratio.clamp(0.0, 1.0 + config.clip_high).detach_as(HELD_RATIO);
    let tokens = Tokens { logp, ratio, held, advantage };
    let mut policy = (settings.surrogate.of)(tokens, &tape, config);
    let mut figures = Figures { settings, tape: &tape, tokens: mask.count() as f64, mask: &mask, metrics: Loss::new() };
    if settings.reads_sampler() {
        let importance = batch.var(&tape, names::IMPORTANCE)?;
        let weight = tape.constant(weights(settings, &importance.to_vec()?));
        policy = policy * weight;
        figures.of_sampler(importance, weight)?;
    }
    let mut loss = Loss::new().term(&tape, POLICY, 1.0, summed(settings, policy, &mask))?;
    if settings.reads_reference() {
        let estimate = (settings.estimator.of)(logp - batch.var(&tape, "reference.logp")?);
        let kl = if config.kl_weighted { estimate * ratio } else { estimate };
        loss = loss.term(&tape, KL, config.kl_coef, summed(settings, kl, &mask))?;
        figures.mean(metric::KL, kl)?;
    }
    if config.report_entropy {
        figures.mean(metric::ENTROPY, batch.var(&tape, "entropy")?)?;
    }
    figures.of_ratio(log_ratio, tokens)?;
    figures.of_rollout(batch)?;
    loss.metrics = figures.metrics.metrics;
    Ok(loss)
}

/// Sum over tokens, or over answers of their mean.
fn summed<'t>(settings: &Settings, tokens: Var<'t>, mask: &Mask) -> Var<'t> {
    match settings.averages_sequences() {
        true => tokens.seq_mean(mask).sum(),
        false => tokens.masked_sum(mask),
    }
}

/// Importance weights as they multiply the surrogate.
fn weights(settings: &Settings, importance: &[f64]) -> Vec<f64> {
    let cap = settings.config.importance_cap;
    let above = if settings.config.importance == "mask" { 0.0 } else { cap };
    importance.iter().map(|ratio| if *ratio > cap { above } else { *ratio }).collect()
}

/// Metrics, collected as they are computed.
struct Figures<'a, 't> {
    settings: &'a Settings,
    tape: &'t Tape,
    mask: &'a Mask,
    tokens: f64,
    metrics: Loss,
}

impl<'t> Figures<'_, 't> {
    fn add(&mut self, name: &str, value: f64, weight: f64) {
        self.metrics = std::mem::take(&mut self.metrics).metric(name, value, weight);
    }

    /// Mean over supervised tokens.
    fn mean(&mut self, name: &str, tokens: Var<'t>) -> Result<()> {
        self.add(name, tokens.masked_sum(self.mask).scalar()?, self.tokens);
        Ok(())
    }

    fn of_sampler(&mut self, importance: Var<'t>, weight: Var<'t>) -> Result<()> {
        let capped = importance.gt(self.settings.config.importance_cap).and(self.mask).count();
        self.add(metric::IMPORTANCE_CAPPED, capped as f64, self.tokens);
        self.mean(metric::IMPORTANCE, weight)
    }

    fn of_ratio(&mut self, log_ratio: Var<'t>, tokens: Tokens<'t>) -> Result<()> {
        let (config, [low, high]) = (&self.settings.config, self.settings.surrogate.clips);
        let Tokens { ratio, advantage, .. } = tokens;
        if low {
            let below = ratio.lt(1.0 - config.clip_low).and(advantage.lt(0.0));
            self.share(metric::CLIP_LOW, &below)?;
        }
        if high {
            let above = ratio.gt(1.0 + config.clip_high);
            // CISPO caps the ratio whatever the advantage is.
            let clipped = if low { above.and(advantage.gt(0.0)) } else { above };
            self.share(metric::CLIP_HIGH, &clipped)?;
        }
        let ratios = ratio.to_vec()?;
        let counted = ratios.iter().zip(self.mask.bits()).filter(|(_, counts)| **counts).map(|(ratio, _)| *ratio);
        self.add(metric::RATIO_MAX, counted.fold(0.0, f64::max), self.tokens.min(1.0));
        self.mean(metric::RATIO, ratio)?;
        self.mean(metric::APPROX_KL, 0.5 * log_ratio.square())
    }

    /// Share of tokens, or of answers where the ratio is that of an answer.
    fn share(&mut self, name: &str, of: &Mask) -> Result<()> {
        let of = of.and(self.mask);
        if !self.settings.by_sequence() {
            self.add(name, of.count() as f64, self.tokens);
            return Ok(());
        }
        let shares = self.tape.constant(of.to_f64()).seq_mean(self.mask);
        self.add(name, shares.sum().scalar()?, shares.to_vec()?.len() as f64);
        Ok(())
    }

    /// Numbers that `prepare` computed, and the answers' length.
    fn of_rollout(&mut self, batch: &Batch<'_>) -> Result<()> {
        let answers = batch.sequences()? as f64;
        for (name, array) in [
            (metric::REWARD, names::REWARD),
            (metric::SPREAD, names::SPREAD),
            (metric::EQUAL, names::EQUAL),
            (metric::TRUNCATED, names::TRUNCATED),
        ] {
            self.add(name, batch.get(array)?.iter().sum(), answers);
        }
        self.add(metric::LENGTH, self.tokens, answers);
        Ok(())
    }
}

/// Names of the metrics.
pub mod metric {
    /// Reward of an answer.
    pub const REWARD: &str = "rewards/mean";
    /// Its standard deviation within a group.
    pub const SPREAD: &str = "rewards/std";
    /// Share of groups whose rewards are all equal.
    pub const EQUAL: &str = "rewards/equal";
    /// Clip fraction below.
    pub const CLIP_LOW: &str = "clip/low";
    /// Clip fraction above.
    pub const CLIP_HIGH: &str = "clip/high";
    /// Ratio of new to old probabilities.
    pub const RATIO: &str = "ratio/mean";
    /// The greatest one.
    pub const RATIO_MAX: &str = "ratio/max";
    /// KL to the policy that sampled the answers.
    pub const APPROX_KL: &str = "approx_kl";
    /// KL to the reference.
    pub const KL: &str = "kl/reference";
    /// Entropy of the policy's distribution.
    pub const ENTROPY: &str = "entropy";
    /// Tokens per answer.
    pub const LENGTH: &str = "length";
    /// Share of truncated answers.
    pub const TRUNCATED: &str = "truncated";
    /// Importance weight against the sampler.
    pub const IMPORTANCE: &str = "importance/mean";
    /// Share of tokens above its cap.
    pub const IMPORTANCE_CAPPED: &str = "importance/capped";
}
