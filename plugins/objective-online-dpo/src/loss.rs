//! Direct preference optimisation on the policy's own answers (Guo et al. 2024, arXiv 2402.04792). A pair is the best
//! answer c and the worst answer r to one prompt, as the rewards rank them. For an answer y:
//!
//! ```text
//! x(y) = sum over y's supervised tokens of logp - reference.logp         `ipo`: their mean
//! m    = x(c) - x(r)
//! preference = -log sigmoid(beta m)         `sigmoid`: Rafailov et al. 2023, arXiv 2305.18290, equation 7
//!            = (m - 1 / (2 beta))^2         `ipo`: Azar et al. 2023, arXiv 2310.12036, equation 17
//! ```
//!
//! summed over pairs; the host divides by the prompts of the optimizer window that gave a pair. `logp`,
//! `reference.logp` and `mask` are `[N]`, `group` and `rank` `[S]`. A masked token adds nothing and its cotangent is
//! exactly 0. The answers are the policy's own at the time of the rollout; like the paper, the loss does not correct
//! for updates since then.
//!
//! The paper lets a language model choose between two answers; here rewards rank any number of them.

use crate::{
    config::Config,
    pairs::{names, pairs},
};
use plugin_api::{
    batch::names::{ENDED, REFERENCE_LOGP, REWARD},
    prelude::*,
};

/// The term.
pub const PREFERENCE: &str = "preference";

/// A row of the table of losses.
#[derive(Debug)]
pub struct PairLoss {
    /// Its name in the option.
    pub name: &'static str,
    /// Whether an answer's log-ratio is the mean over its tokens instead of the sum.
    pub averages: bool,
    /// Converts the pairs' margins to losses; the number is `beta`.
    pub of: for<'t> fn(Var<'t>, f64) -> Var<'t>,
}

/// The losses; the first is the default.
pub const LOSSES: &[PairLoss] = &[
    PairLoss { name: "sigmoid", averages: false, of: |margin, beta| -(beta * margin).log_sigmoid() },
    PairLoss { name: "ipo", averages: true, of: |margin, beta| (margin - 0.5 / beta).square() },
];

/// Terms, cotangents and metrics of a micro-batch.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing, and a pair that was cut apart; [`Code::SHAPE`] for lengths that
/// disagree and a mask that is not 0 or 1.
pub fn loss(config: &Config, row: &PairLoss, batch: &Batch<'_>) -> Result<Loss> {
    let (tape, mask) = (batch.tape()?, Mask::from(batch.mask()?));
    let (best, worst) = pairs(batch)?;
    let policy = batch.var(&tape, "logp")?;
    let ratio = policy - batch.var(&tape, REFERENCE_LOGP)?;
    let sides = |answers: Var<'_>| -> Result<(Vec<f64>, Vec<f64>)> {
        Ok((answers.index_select(&best).to_vec()?, answers.index_select(&worst).to_vec()?))
    };
    let scored = if row.averages { ratio.seq_mean(&mask) } else { ratio.seq_sum(&mask) };
    let losses = (row.of)(scored.index_select(&best) - scored.index_select(&worst), config.beta);
    let mut loss = Loss::new().term(&tape, PREFERENCE, 1.0, losses.sum())?;
    let (chosen, rejected) = sides(config.beta * ratio.seq_sum(&mask))?;
    let pairs = chosen.len() as f64;
    let right = chosen.iter().zip(&rejected).filter(|(chosen, rejected)| chosen > rejected).count() as f64;
    let (logps_chosen, logps_rejected) = sides(policy.seq_sum(&mask))?;
    let (scores_best, scores_worst) = sides(tape.constant(batch.get(REWARD)?))?;
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    for (name, value) in [
        (metric::CHOSEN, sum(&chosen)),
        (metric::REJECTED, sum(&rejected)),
        (metric::MARGIN, sum(&chosen) - sum(&rejected)),
        (metric::ACCURACY, right),
        (metric::LOGPS_CHOSEN, sum(&logps_chosen)),
        (metric::LOGPS_REJECTED, sum(&logps_rejected)),
        (metric::BEST, sum(&scores_best)),
        (metric::WORST, sum(&scores_worst)),
    ] {
        loss = loss.metric(name, value, pairs);
    }
    let answers = batch.sequences()? as f64;
    for (name, array) in [
        (metric::REWARD, names::REWARD),
        (metric::PAIRS, names::PAIRS),
        (metric::KL, names::KL),
        (metric::ENDED, ENDED),
    ] {
        loss = loss.metric(name, sum(batch.get(array)?), answers);
    }
    Ok(loss.metric(metric::LENGTH, mask.count() as f64, answers))
}

/// Names of the metrics; those of pairs as in the objective `dpo`.
pub mod metric {
    /// Implicit reward of the best answers.
    pub const CHOSEN: &str = "rewards/chosen";
    /// Implicit reward of the worst answers.
    pub const REJECTED: &str = "rewards/rejected";
    /// Their difference.
    pub const MARGIN: &str = "rewards/margin";
    /// Share of pairs that the implicit reward ranks correctly.
    pub const ACCURACY: &str = "rewards/accuracy";
    /// Log-probability of the best answers.
    pub const LOGPS_CHOSEN: &str = "logps/chosen";
    /// Log-probability of the worst answers.
    pub const LOGPS_REJECTED: &str = "logps/rejected";
    /// Reward of the best answers.
    pub const BEST: &str = "scores/best";
    /// Reward of the worst answers.
    pub const WORST: &str = "scores/worst";
    /// Reward of all answers.
    pub const REWARD: &str = "scores/mean";
    /// Share of prompts that give a pair.
    pub const PAIRS: &str = "pairs";
    /// KL to the reference.
    pub const KL: &str = "kl";
    /// Tokens per answer.
    pub const LENGTH: &str = "length";
    /// Share of answers that ended.
    pub const ENDED: &str = "ended";
}
