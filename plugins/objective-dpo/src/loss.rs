//! Direct preference optimisation. A pair has one prompt, a chosen answer c and a rejected answer r. For an answer y:
//!
//! ```text
//! log pi(y) = sum over y's supervised tokens of logp               log-probability, in nats
//! x(y)      = log pi(y) - log ref(y)                               log-ratio to the reference
//! m         = x(c) - x(r)                                          margin
//!
//! preference = -log sigmoid(beta m)                                and its kin: the table in `losses`
//! sft        = -sum over the chosen answers' supervised tokens of logp
//! total      = preference per pair + sft_weight * sft per chosen token
//! ```
//!
//! (Rafailov et al. 2023, arXiv 2305.18290, equation 7.) `logp`, `reference.logp` and `mask` are `[N]` tokens, aligned to the
//! target; `group` and `side` are `[S]` sequences: the pair's number, and 1 for chosen, 0 for rejected. A masked token adds
//! nothing and its cotangent is exactly 0. The host divides `preference` by the pairs and `sft` by the chosen answers' supervised
//! tokens, each of the whole optimizer window.
//!
//! With `ld_alpha`, tokens beyond the length of the pair's shorter answer are weighted by it in the sums of policy and reference
//! (Liu et al. 2024, LD-DPO, arXiv 2409.06411). Losses that average take the mean over the supervised tokens.
//!
//! The reward of y is `beta x(y)`, with the sum over tokens even if the loss uses the mean, as in TRL 1.16.0 (0.16.1 reports IPO's
//! reward per token). Without a reference it is `beta log pi(y)`. They remain log-ratios under every f-divergence.

use crate::{
    losses::{Shape, Sides},
    settings::Settings,
};
use plugin_api::{batch::names, prelude::*};

/// The term of the pairs.
pub const PREFERENCE: &str = "preference";
/// The term of the chosen answers' likelihood.
pub const SFT: &str = "sft";

/// A tape with the batch's arrays on it.
struct Pairs<'a> {
    settings: &'a Settings,
    tape: &'a Tape,
    mask: &'a [f64],
    group: &'a [f64],
    side: &'a [f64],
    /// `[N]`.
    policy: Var<'a>,
    /// `[N]`; zeros if there is no reference.
    reference: Var<'a>,
}

/// Terms, cotangents and metrics of a micro-batch.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing; [`Code::SHAPE`] for lengths that disagree, a pair without exactly one answer on
/// each side, and a mask or side that is not 0 or 1.
pub fn loss(settings: &Settings, batch: &Batch<'_>) -> Result<Loss> {
    let tape = batch.tape()?;
    let pairs = Pairs::of(settings, batch, &tape)?;
    let mut loss = Loss::new();
    if let Some(losses) = pairs.losses()? {
        loss = loss.term(&tape, PREFERENCE, 1.0, losses.sum())?;
    }
    let coefficient = settings.sft_coefficient();
    if coefficient > 0.0 {
        let nll = -pairs.policy.masked_sum(&pairs.chosen_tokens()?);
        loss = loss.term(&tape, SFT, coefficient, nll)?;
    }
    pairs.metrics(loss)
}

/// Returns one preference loss per pair, in the order in which pairs first occur, or one per rank if the loss sorts. `None` if the
/// option `loss` selects a loss without pairs.
///
/// # Errors
/// As [`loss`].
pub fn losses(settings: &Settings, batch: &Batch<'_>) -> Result<Option<Vec<f64>>> {
    let tape = batch.tape()?;
    let losses = Pairs::of(settings, batch, &tape)?.losses()?;
    Ok(losses.map(Var::to_vec).transpose()?)
}

/// The number of supervised tokens in the chosen answers: what the likelihood term is divided by.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing; [`Code::SHAPE`] for lengths that disagree.
pub fn chosen_tokens(batch: &Batch<'_>) -> Result<f64> {
    let tape = batch.tape()?;
    let chosen = tape.constant(batch.get(names::SIDE)?).to_tokens();
    Ok(chosen.masked_sum(batch.mask()?).scalar()?)
}

impl<'a> Pairs<'a> {
    fn of(settings: &'a Settings, batch: &'a Batch<'_>, tape: &'a Tape) -> Result<Self> {
        let policy = batch.var(tape, "logp")?;
        let reference = match settings.config.reference_free {
            true => tape.constant(vec![0.0; batch.tokens()?]),
            false => batch.var(tape, "reference.logp")?,
        };
        let (mask, group, side) = (batch.mask()?, batch.get(names::GROUP)?, batch.get(names::SIDE)?);
        Ok(Self { settings, tape, mask, group, side, policy, reference })
    }

    /// Both sides of a value per answer, `[S]` to `[P]`.
    fn sides(&self, answers: Var<'a>) -> Sides<'a> {
        Sides { chosen: answers.chosen(self.group, self.side), rejected: answers.rejected(self.group, self.side) }
    }

    fn losses(&self) -> Result<Option<Var<'a>>> {
        let (options, loss) = (&self.settings.loss_options(), self.settings.loss);
        let weight = self.length_weight()?;
        let answers = |tokens: Var<'a>| match loss.averages {
            true => self.sides(tokens.seq_mean(self.mask)),
            false => self.sides(summed(tokens, weight, self.mask)),
        };
        let ratio = || answers(self.policy - self.reference);
        Ok(match loss.shape {
            Shape::Margin(of) => {
                let (score, alpha) = (self.settings.divergence.score, self.settings.config.divergence_alpha);
                let Sides { chosen, rejected } = ratio();
                Some(of(score(chosen, alpha) - score(rejected, alpha), options))
            }
            Shape::Ratios(of) => Some(of(ratio(), options)),
            Shape::Sorted(of) => Some(of(answers(self.policy), answers(self.reference), options)),
            Shape::None => None,
        })
    }

    /// `[N]`: `ld_alpha` for supervised tokens beyond the pair's shorter answer, else 1. `None` if all tokens have weight 1.
    fn length_weight(&self) -> Result<Option<Var<'a>>> {
        if !self.settings.discounts_length() {
            return Ok(None);
        }
        let mask = Mask::from(self.mask);
        let lengths = self.sides(self.tape.constant(mask.to_f64()).seq_sum(&mask));
        let shorter = lengths.chosen.min(lengths.rejected).group_broadcast(self.group).to_tokens().to_vec()?;
        let position = self.supervised_before(&mask)?;
        let weight = |(before, shorter): (f64, f64)| if before < shorter { 1.0 } else { self.settings.config.ld_alpha };
        let weights: Vec<f64> = position.into_iter().zip(shorter).map(weight).collect();
        Ok(Some(self.tape.constant(weights)))
    }

    /// `[N]`: the number of supervised tokens of the same answer before this one.
    fn supervised_before(&self, mask: &Mask) -> Result<Vec<f64>> {
        let sequences: Vec<f64> = (0..self.side.len()).map(|s| s as f64).collect();
        let of_token = self.tape.constant(sequences).to_tokens().to_vec()?;
        let mut before = Vec::with_capacity(of_token.len());
        let (mut current, mut count) = (-1.0, 0.0);
        for (sequence, supervised) in of_token.into_iter().zip(mask.bits()) {
            if sequence != current {
                (current, count) = (sequence, 0.0);
            }
            before.push(count);
            count += f64::from(u8::from(*supervised));
        }
        Ok(before)
    }

    /// The supervised tokens of the chosen answers.
    fn chosen_tokens(&self) -> Result<Mask> {
        let chosen = self.tape.constant(self.side).to_tokens().gt(0.5);
        Ok(Mask::from(self.mask).and(chosen))
    }

    /// Means over pairs; `kl` is a mean over answers.
    fn metrics(&self, loss: Loss) -> Result<Loss> {
        let weight = self.length_weight()?;
        let ratios = summed(self.policy - self.reference, weight, self.mask);
        let rewards = self.sides(self.settings.config.beta * ratios);
        let logps = self.sides(self.policy.seq_sum(self.mask));
        let margin = rewards.margin();
        let right = margin.gt(0.0).count() as f64;
        let pairs = margin.to_vec()?.len() as f64;
        let mut loss = loss;
        for (name, values) in [
            (metric::CHOSEN, rewards.chosen),
            (metric::REJECTED, rewards.rejected),
            (metric::MARGIN, margin),
            (metric::LOGPS_CHOSEN, logps.chosen),
            (metric::LOGPS_REJECTED, logps.rejected),
        ] {
            loss = loss.metric(name, values.sum().scalar()?, pairs);
        }
        loss = loss.metric(metric::ACCURACY, right, pairs);
        if self.settings.config.reference_free {
            return Ok(loss);
        }
        Ok(loss.metric(metric::KL, self.divergence_from_reference()?, self.side.len() as f64))
    }

    /// Sum over tokens of the low-variance estimate `exp(d) - 1 - d`, d = logp - reference.logp. It estimates KL(reference ||
    /// policy) if the answers were drawn from the reference; `d` is at most 20 in the exponential.
    fn divergence_from_reference(&self) -> Result<f64> {
        let difference = self.policy - self.reference;
        let estimate = difference.clamp(f64::NEG_INFINITY, KL_CAP).exp() - 1.0 - difference;
        Ok(estimate.masked_sum(self.mask).scalar()?)
    }
}

/// Above this log-ratio of one token an exponential is meaningless and dominates the sum over all tokens.
const KL_CAP: f64 = 20.0;

fn summed<'t>(tokens: Var<'t>, weight: Option<Var<'t>>, mask: &[f64]) -> Var<'t> {
    weight.map_or(tokens, |weight| tokens * weight).seq_sum(mask)
}

/// Names of the metrics.
pub mod metric {
    /// Reward of the chosen answers.
    pub const CHOSEN: &str = "rewards/chosen";
    /// Reward of the rejected answers.
    pub const REJECTED: &str = "rewards/rejected";
    /// Reward of the chosen minus that of the rejected answers.
    pub const MARGIN: &str = "rewards/margin";
    /// Share of pairs that are ranked correctly.
    pub const ACCURACY: &str = "rewards/accuracy";
    /// Log-probability of the chosen answers.
    pub const LOGPS_CHOSEN: &str = "logps/chosen";
    /// Log-probability of the rejected answers.
    pub const LOGPS_REJECTED: &str = "logps/rejected";
    /// Divergence from the reference.
    pub const KL: &str = "kl";
}
