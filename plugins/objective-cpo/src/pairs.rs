//! What both objectives share: a batch's pairs, the likelihood of the chosen answers, and the metrics.

use plugin_api::{batch::names, prelude::*};

/// The term of the pairs.
pub const PREFERENCE: &str = "preference";
/// The term of the chosen answers' likelihood.
pub const SFT: &str = "sft";

/// What the term `sft` is divided by: the values of the option `sft_per`.
pub const SFT_PER: [&str; 2] = ["token", "answer"];

/// Both answers of each pair, `[P]` each.
#[derive(Clone, Copy)]
pub struct Sides<'t> {
    /// Of the chosen answers.
    pub chosen: Var<'t>,
    /// Of the rejected answers.
    pub rejected: Var<'t>,
}

impl<'t> Sides<'t> {
    /// Chosen minus rejected.
    pub fn margin(self) -> Var<'t> {
        self.chosen - self.rejected
    }
}

/// The pairs of a batch on a tape.
pub struct Pairs<'a> {
    tape: &'a Tape,
    mask: &'a [f64],
    group: &'a [f64],
    side: &'a [f64],
    /// `[N]`.
    logp: Var<'a>,
}

impl<'a> Pairs<'a> {
    /// Reads the arrays of a batch.
    ///
    /// # Errors
    /// [`Code::ARRAY`] for an array that is missing.
    pub fn of(batch: &'a Batch<'_>, tape: &'a Tape) -> Result<Self> {
        let logp = batch.var(tape, "logp")?;
        Ok(Self { tape, mask: batch.mask()?, group: batch.get(names::GROUP)?, side: batch.get(names::SIDE)?, logp })
    }

    /// The answers' log-probabilities, summed over their tokens.
    pub fn sums(&self) -> Sides<'a> {
        self.sides(self.logp.seq_sum(self.mask))
    }

    /// The answers' log-probabilities, averaged over their tokens.
    pub fn means(&self) -> Sides<'a> {
        self.sides(self.logp.seq_mean(self.mask))
    }

    fn sides(&self, answers: Var<'a>) -> Sides<'a> {
        Sides { chosen: answers.chosen(self.group, self.side), rejected: answers.rejected(self.group, self.side) }
    }

    /// The loss: the pairs' values `[P]`, the likelihood of the chosen answers unless its weight is 0, and the metrics.
    ///
    /// # Errors
    /// [`Code::SHAPE`] for lengths that disagree, a pair without exactly one answer on each side, and a mask or side that is not
    /// 0 or 1.
    pub fn loss(&self, pairs: Var<'a>, sft_weight: f64, rewards: Sides<'a>) -> Result<Loss> {
        let chosen = Mask::from(self.mask).and(self.tape.constant(self.side).to_tokens().gt(0.5));
        let nll = -self.logp.masked_sum(&chosen);
        let mut loss = Loss::new().term(self.tape, PREFERENCE, 1.0, pairs.sum())?;
        if sft_weight > 0.0 {
            loss = loss.term(self.tape, SFT, sft_weight, nll)?;
        }
        let (sums, margin) = (self.sums(), rewards.margin());
        let count = margin.to_vec()?.len() as f64;
        for (name, values) in [
            (metric::CHOSEN, rewards.chosen),
            (metric::REJECTED, rewards.rejected),
            (metric::MARGIN, margin),
            (metric::LOGPS_CHOSEN, sums.chosen),
            (metric::LOGPS_REJECTED, sums.rejected),
        ] {
            loss = loss.metric(name, values.sum().scalar()?, count);
        }
        loss = loss.metric(metric::ACCURACY, margin.gt(0.0).count() as f64, count);
        Ok(loss.metric(metric::NLL, nll.scalar()?, chosen.count() as f64))
    }
}

/// Why `sft_per` has no effect, if it was given without a weight of the term.
pub(crate) fn unused_sft_per(sft_weight: f64, sft_per: &str) -> Option<String> {
    (sft_weight == 0.0 && sft_per != SFT_PER[0])
        .then(|| "option `sft_per`: it has no effect with `sft_weight = 0`".to_owned())
}

/// A micro-batch's share of what the term `sft` is divided by: the supervised tokens of the chosen answers, or the
/// chosen answers.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing; [`Code::SHAPE`] for lengths that disagree.
pub fn weigh(batch: &Batch<'_>, sft_per: &str) -> Result<Vec<(String, f64)>> {
    let side = batch.get(names::SIDE)?;
    let tape = batch.tape()?;
    let share = match sft_per {
        "answer" => tape.constant(side).gt(0.5).count() as f64,
        _ => tape.constant(side).to_tokens().masked_sum(batch.mask()?).scalar()?,
    };
    Ok(vec![(SFT.to_owned(), share)])
}

/// The terms of both manifests.
pub(crate) fn terms() -> Vec<TermSpec> {
    vec![
        TermSpec::new(PREFERENCE, Normaliser::PAIRS, "The preference loss"),
        TermSpec::new(
            SFT,
            Normaliser::CUSTOM,
            "Negative log-likelihood of the chosen answers in nats, per supervised token or per answer (`sft_per`); only with \
             `sft_weight` above 0",
        ),
    ]
}

/// The metrics of both manifests; `reward` says what an answer's reward is.
pub(crate) fn metrics(reward: &str) -> Vec<MetricSpec> {
    let mean = |name, meaning: &str| MetricSpec::new(name, Reduction::MEAN, meaning);
    vec![
        mean(metric::CHOSEN, &format!("Implicit reward of the chosen answer, {reward}")),
        mean(metric::REJECTED, "Implicit reward of the rejected answer"),
        mean(metric::MARGIN, "Reward of the chosen less that of the rejected answer"),
        mean(metric::ACCURACY, "Share of pairs whose chosen answer has the greater reward; a tie does not count"),
        mean(
            metric::LOGPS_CHOSEN,
            "Log-probability of the chosen answer, summed over its tokens, in nats; it may fall while the margin grows",
        ),
        mean(metric::LOGPS_REJECTED, "Log-probability of the rejected answer, summed over its tokens, in nats"),
        mean(metric::NLL, "Negative log-likelihood of the chosen answers, in nats per token"),
    ]
}

/// What holds before the first update, under all options.
pub(crate) fn expectations() -> Vec<Expectation> {
    vec![Expectation {
        quantity: metric::NLL.into(),
        value: "ln_vocab".into(),
        tolerance: 0.1,
        when: "the weights are freshly initialised, so that the logits are nearly uniform".into(),
    }]
}

/// Refuses what the declared ranges cannot express.
pub(crate) fn positive_beta(beta: f64) -> Option<String> {
    (beta <= 0.0).then(|| format!("option `beta`: {beta} is not above 0"))
}

/// An error of all these mistakes, or nothing.
pub(crate) fn refuse(mistakes: impl IntoIterator<Item = String>) -> Result<()> {
    let all: Vec<String> = mistakes.into_iter().collect();
    if all.is_empty() { Ok(()) } else { Err(Error::new(Code::OPTION, all.join("; "))) }
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
    /// Negative log-likelihood per token of the chosen answers.
    pub const NLL: &str = "nll/chosen";
}
