//! Group-relative policy optimisation (Shao et al. 2024, DeepSeekMath, arXiv 2402.03300, equation 3), without a critic. For a
//! supervised token t of answer s, with r the rewards of the answers to one prompt (a group)
//!
//! ```text
//! advantage[s] = (r[s] - mean r) / (std r + 1e-4)              std with Bessel's correction; 0 in a group of one
//! ratio[t]     = exp(clamp(logp - old_logp, -20, 20))
//! policy[t]    = -min(ratio advantage, clamp(ratio, 1 - clip_low, 1 + clip_high) advantage)
//! kl[t]        = exp(d) - 1 - d, d = reference.logp - logp     k3, never negative
//! total        = policy + kl_coef kl, per supervised token of the optimizer window
//! ```
//!
//! `logp`, `old_logp`, `reference.logp` and `mask` are `[N]`; `reward`, `group` and `advantage` are `[S]`. The paper takes the
//! mean over an answer's tokens first and then over answers; here every token has the same weight (TRL's `bnpo`). A masked token
//! adds nothing and its cotangent is exactly 0.

use plugin_api::{batch::names, prelude::*};

/// Per sequence, from `prepare`.
const ADVANTAGE: &str = "advantage";
/// Per token, from `prepare`: `logp` of the policy that sampled the answer.
const OLD_LOGP: &str = "old_logp";
/// Per sequence, from `prepare`: the standard deviation of the rewards in its group.
const SPREAD: &str = "reward_spread";
/// Keeps an exponential finite.
const LOG_RATIO_CAP: f64 = 20.0;

options! {
    /// Options of GRPO.
    pub struct Config {
        /// How far below 1 the ratio may fall before it earns nothing more.
        clip_low: f64 = 0.2, in 0.0..=1.0;
        /// How far above 1 the ratio may rise before it earns nothing more.
        clip_high: f64 = 0.2, from 0.0;
        /// Weight of the KL to the reference; 0 reads no reference.
        kl_coef: f64 = 0.0, from 0.0;
    }
}

/// GRPO; it has no state.
pub struct Grpo(Config);

impl ObjectivePlugin for Grpo {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let per_token = |name, meaning| TermSpec::new(name, Normaliser::SUPERVISED_TOKENS, meaning);
        let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            summary: "GRPO: answers are compared with the other answers to their prompt; no critic".into(),
            formula: "-min(r A, clamp(r, 1 - clip_low, 1 + clip_high) A) + kl_coef k3, A the reward less its group's mean, over \
                      its group's standard deviation"
                .into(),
            paper: "Shao et al. 2024, arXiv 2402.03300, equation 3".into(),
            data: DataKind::PROMPT,
            terms: vec![
                per_token("policy", "The clipped surrogate, negated"),
                per_token("kl", "KL to the reference by k3, in nats; there only where `kl_coef` is above 0"),
            ],
            metrics: vec![
                mean("ratio", "Probability of a token, now to when it was drawn"),
                mean("clip_fraction", "Share of tokens whose ratio was clipped"),
                mean("reward_spread", "Standard deviation of the rewards within a group; where it is 0 nothing is learned"),
            ],
            expectations: vec![Expectation {
                quantity: "ratio".into(),
                value: "1".into(),
                tolerance: 0.01,
                when: "the first step: the policy is the one that answered".into(),
            }],
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Objective for Grpo {
    fn requirements(&self) -> Result<Requirements> {
        let reference = Some(names::REFERENCE_LOGP).filter(|_| self.0.kl_coef > 0.0);
        Ok(Requirements::reading(["logp"].into_iter().chain(reference)))
    }

    fn prepare(&mut self, rollout: &Batch<'_>) -> Result<Batch<'static>> {
        let (mask, logp) = (rollout.mask()?, rollout.get("logp")?);
        let (advantage, spread) = advantages(rollout.get(names::REWARD)?, rollout.get(names::GROUP)?);
        // Values behind the mask are arbitrary.
        let old = mask.iter().zip(logp).map(|(m, l)| if *m == 1.0 { *l } else { 0.0 }).collect::<Vec<f64>>();
        Ok(Batch::new().with(ADVANTAGE, Scope::SEQUENCE, advantage).with(SPREAD, Scope::SEQUENCE, spread).with(
            OLD_LOGP,
            Scope::TOKEN,
            old,
        ))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask) = (batch.tape()?, Mask::from(batch.mask()?));
        let logp = batch.var(&tape, "logp")?;
        let advantage = batch.var(&tape, ADVANTAGE)?.to_tokens();
        let ratio = (logp - batch.var(&tape, OLD_LOGP)?).clamp(-LOG_RATIO_CAP, LOG_RATIO_CAP).exp();
        let clipped = -(ratio.clamp(1.0 - self.0.clip_low, 1.0 + self.0.clip_high) * advantage);
        let plain = -(ratio * advantage);
        let mut loss = Loss::new().term(&tape, "policy", 1.0, plain.max(clipped).masked_sum(&mask))?;
        if self.0.kl_coef > 0.0 {
            let d = batch.var(&tape, names::REFERENCE_LOGP)? - logp;
            let k3 = d.clamp(f64::NEG_INFINITY, LOG_RATIO_CAP).exp() - 1.0 - d;
            loss = loss.term(&tape, "kl", self.0.kl_coef, k3.masked_sum(&mask))?;
        }
        let tokens = mask.count() as f64;
        let share = clipped.gt(plain).and(&mask).count() as f64;
        let spread = batch.get(SPREAD)?;
        Ok(loss
            .metric("ratio", ratio.masked_sum(&mask).scalar()?, tokens)
            .metric("clip_fraction", share, tokens)
            .metric("reward_spread", spread.iter().sum(), spread.len() as f64))
    }
}

/// The advantage of each answer and the standard deviation of its group's rewards, `[S]` each.
pub fn advantages(reward: &[f64], group: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let of_answer = |(own, mine): (&f64, &f64)| {
        let others: Vec<f64> = reward.iter().zip(group).filter(|(_, g)| *g == mine).map(|(r, _)| *r).collect();
        let count = others.len() as f64;
        let mean = others.iter().sum::<f64>() / count;
        let squares: f64 = others.iter().map(|r| (r - mean).powi(2)).sum();
        let deviation = if count > 1.0 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
        ((own - mean) / (deviation + 1e-4), deviation)
    };
    reward.iter().zip(group).map(of_answer).unzip()
}

export_objective!("grpo", Grpo);
