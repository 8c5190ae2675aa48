//! Best of n: supervised learning on the best of several answers to each prompt, as a reward ranks them.
//!
//! The policy gives n answers to each prompt of a rollout; `prepare` keeps the `keep_top` answers with the greatest
//! rewards, and the loss is their negative log-likelihood (Dong et al. 2023, RAFT, arXiv 2304.06767, algorithm 1; also
//! called rejection sampling fine-tuning):
//!
//! ```text
//! nll = -sum over supervised tokens of logp          divided by the host by the kept answers' supervised tokens
//! ```
//!
//! `logp` and `mask` are `[N]`, `reward`, `group` and `keep` `[S]`. There is no reference and no advantage: the reward
//! enters only through the choice. Among equal rewards the choice depends on the answers' tokens alone and prefers
//! neither short nor likely answers. The paper ranks the answers of the whole batch together or by prompt; here it is
//! by prompt.

use plugin_api::{
    batch::names::{ENDED, GROUP, REWARD, TARGET},
    groups::tie_break,
    prelude::*,
};

/// The term.
pub const NLL: &str = "nll";

/// `[S]`, from `prepare`: the mean reward of all answers of the rollout, kept or not; the same for all.
pub const MEAN_REWARD: &str = "rollout.reward";

options! {
    /// Options of best of n.
    pub struct Config {
        /// Answers to each prompt that are learned from.
        keep_top: i64 = 1, from 1;
    }
}

/// Best of n; it has no state.
pub struct BestOfN(Config);

impl ObjectivePlugin for BestOfN {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            summary: "Best of n: supervised learning on the best of the policy's own answers to each prompt".into(),
            formula: "-logp, summed over the supervised tokens of the `keep_top` answers to each prompt that have the greatest rewards"
                .into(),
            paper: "Dong et al. 2023 (RAFT), arXiv 2304.06767".into(),
            data: DataKind::PROMPT,
            terms: vec![TermSpec::new(
                NLL,
                Normaliser::SUPERVISED_TOKENS,
                "Negative log-probability per token, in nats",
            )],
            metrics: vec![
                mean(metric::BEST, "Reward of the answers that are learned from"),
                mean(metric::MEAN, "Reward of all answers of the rollout"),
                mean(
                    metric::LENGTH,
                    "Supervised tokens per answer that is learned from, the end-of-text token included",
                ),
                mean(metric::ENDED, "Share of the answers that are learned from that ended by themselves"),
            ],
            expectations: vec![Expectation {
                quantity: NLL.into(),
                value: "ln_vocab".into(),
                tolerance: 0.1,
                when: "the logits are uniform".into(),
            }],
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Objective for BestOfN {
    /// The loss of a given answer is that of supervised learning: linear, and each answer for itself.
    fn requirements(&self) -> Result<Requirements> {
        let samples = u64::try_from(self.0.keep_top).unwrap_or(0).saturating_add(1);
        Ok(Requirements { linear: true, samples, whole_groups: false, requests: false, ..Default::default() })
    }

    fn prepare(&mut self, rollout: &Batch<'_>) -> Result<Batch<'static>> {
        let reward = rollout.get(REWARD)?;
        if let Some(s) = reward.iter().position(|reward| !reward.is_finite()) {
            return Err(Error::new(Code::ARRAY, format!("`reward`[{s}] of the rollout is {}", reward[s])));
        }
        let keep = best(rollout, self.0.keep_top as usize)?;
        let mean = reward.iter().sum::<f64>() / reward.len().max(1) as f64;
        Ok(Batch::new().with("keep", Scope::SEQUENCE, keep).with(
            MEAN_REWARD,
            Scope::SEQUENCE,
            vec![mean; reward.len()],
        ))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask) = (batch.tape()?, Mask::from(batch.mask()?));
        let nll = -batch.var(&tape, "logp")?.masked_sum(&mask);
        let (answers, sum) = (batch.sequences()? as f64, |name| Ok::<f64, Error>(batch.get(name)?.iter().sum()));
        Ok(Loss::new()
            .term(&tape, NLL, 1.0, nll)?
            .metric(metric::BEST, sum(REWARD)?, answers)
            .metric(metric::MEAN, sum(MEAN_REWARD)?, answers)
            .metric(metric::LENGTH, mask.count() as f64, answers)
            .metric(metric::ENDED, sum(ENDED)?, answers))
    }
}

/// Per answer 1 if fewer than `count` answers to its prompt are better, else 0.
fn best(rollout: &Batch<'_>, count: usize) -> Result<Vec<f64>> {
    let (reward, group, offsets) = (rollout.get(REWARD)?, rollout.get(GROUP)?, rollout.offsets()?);
    let lots = tie_break(rollout.get(TARGET)?, &offsets);
    // A number for equal answers too, so that exactly `count` are kept.
    let rank = |s: usize| (reward[s], lots[s], s);
    let better = |s: usize| (0..reward.len()).filter(|o| group[*o] == group[s] && rank(*o) > rank(s)).count();
    Ok((0..reward.len()).map(|s| f64::from(u8::from(better(s) < count))).collect())
}

/// Names of the metrics.
pub mod metric {
    /// Reward of the kept answers.
    pub const BEST: &str = "rewards/best";
    /// Reward of all answers.
    pub const MEAN: &str = "rewards/mean";
    /// Tokens per answer.
    pub const LENGTH: &str = "length";
    /// Share of answers that ended.
    pub const ENDED: &str = "ended";
}

export_objective!("best-of-n", BestOfN);
