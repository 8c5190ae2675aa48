//! Proximal policy optimisation from rewards: a policy that answers prompts, a frozen reference that limits its change, a critic.
//!
//! The loss is in [`loss`], rewards and everything else computed for a rollout in [`rollout`], advantages in [`gae`], estimates of
//! the KL and its controller in [`kl`], the options in [`config`]; this file has the plugin's description.

pub mod config;
pub mod gae;
pub mod kl;
pub mod loss;
pub mod rollout;

use config::{Config, Settings};
use kl::Controller;
use loss::metric;
use plugin_api::prelude::*;

/// PPO, and the coefficient of its KL penalty, which is its state.
pub struct Ppo {
    settings: Settings,
    controller: Controller,
}

impl ObjectivePlugin for Ppo {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "PPO: answers to prompts get a score minus a KL penalty to the reference; a critic predicts the return".into(),
            formula: FORMULA.into(),
            paper: "Schulman et al. 2017 (PPO), arXiv 1707.06347, equation 7; advantages: Schulman et al. 2015 (GAE), arXiv \
                    1506.02438, equation 16; rewards and the adaptive coefficient: Ziegler et al. 2019, arXiv 1909.08593, \
                    section 2.2; details: Huang et al. 2024, arXiv 2403.17031"
                .into(),
            data: DataKind::PROMPT,
            terms: terms(),
            metrics: metrics(),
            expectations: expectations(),
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        let settings = Settings::new(options)?;
        let c = &settings.config;
        let steering = settings.adapts().then_some((c.kl_target, c.kl_horizon));
        Ok(Self { controller: Controller { coefficient: c.kl_coef, steering }, settings })
    }
}

const FORMULA: &str = "ratio r = exp(logp - old_logp), A advantage, v = critic.value, c the clip ranges:
  policy: max(-r A, -clamp(r, 1 - c, 1 + c) A)
  value: 1/2 max((v - return)^2, (clamp(v, old_value - c, old_value + c) - return)^2), times value_coef
  entropy: -entropy, times entropy_coef
  A is the generalised advantage of the token rewards -kl_coef kl_penalty(logp - reference.logp), with the score on the answer's \
last token, whitened over the rollout";

fn terms() -> Vec<TermSpec> {
    let per_token = |name, meaning| TermSpec::new(name, Normaliser::SUPERVISED_TOKENS, meaning);
    vec![
        per_token(loss::POLICY, "The clipped surrogate, negated: near 0 if advantages are whitened"),
        per_token(loss::VALUE, "Half the critic's squared error, the greater of clipped and unclipped"),
        per_token(loss::ENTROPY, "Negative entropy in nats; only with `entropy_coef` above 0"),
    ]
}

fn metrics() -> Vec<MetricSpec> {
    let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
    let healthy = |name, meaning, range| MetricSpec { healthy: Some(range), ..mean(name, meaning) };
    vec![
        mean(
            metric::KL,
            "KL to the reference in nats per answer, estimated by k1 whatever `kl_penalty` is; 0 while the policy equals the reference, may be \
             negative by chance",
        ),
        mean(metric::SURPRISE, "Negative log-probability of an answer in nats, estimates the entropy of whole answers"),
        mean(metric::NON_SCORE_REWARD, "The KL penalty of an answer, as a reward"),
        mean(metric::RLHF_REWARD, "Score minus KL penalty of an answer: the quantity that is maximised"),
        mean(metric::SCORES, "Score of an answer, including the penalty for a missing end-of-text token"),
        mean(
            metric::ENTROPY,
            "Entropy of the policy's distribution in nats per token; absent with `report_entropy = false`",
        ),
        healthy(
            metric::APPROX_KL,
            "KL to the policy that answered, in nats per token: half the mean square of the log-ratio; bounded by `target_kl`",
            (0.0, 0.1),
        ),
        healthy(
            metric::CLIP_FRACTION,
            "Share of tokens whose ratio was clipped, so that they have no gradient",
            (0.0, 0.4),
        ),
        mean(
            metric::VALUE_CLIP_FRACTION,
            "Share of tokens whose value was clipped; absent with `value_clip_range = 0`",
        ),
        healthy(
            metric::RATIO,
            "Ratio of a token's probability now to that when it was sampled; 1 at first",
            (0.8, 1.25),
        ),
        mean(metric::RATIO_VARIANCE, "Mean square distance of the ratio from 1, its expectation under the old policy"),
        mean(metric::VALUE_ERROR, "Mean square error of the critic, unclipped and unhalved"),
        mean(
            metric::EXPLAINED_VARIANCE,
            "Share of the returns' variance that the critic predicted, over the rollout, before the first step on it; 1 is all of it, \
             below 0 worse than predicting a constant",
        ),
        mean(metric::LENGTH, "Supervised tokens per answer, the end-of-text token included"),
        mean(metric::ENDED, "Share of answers that ended by themselves rather than being cut off"),
        mean(metric::KL_COEF, "Coefficient of the KL penalty as this rollout used it"),
    ]
}

fn expectations() -> Vec<Expectation> {
    let expect = |quantity: &str, value: &str| Expectation {
        quantity: quantity.into(),
        value: value.into(),
        // Dropout, a missing temperature or other positions are far outside; bf16 is within.
        tolerance: 0.01,
        when: "the first minibatch of the first epoch: the policy is the one that answered".into(),
    };
    vec![expect(metric::RATIO, "1"), expect(metric::CLIP_FRACTION, "0")]
}

impl Objective for Ppo {
    fn requirements(&self) -> Result<Requirements> {
        Ok(self.settings.requirements())
    }

    fn prepare(&mut self, rollouts: &Batch<'_>) -> Result<Batch<'static>> {
        let prepared = rollout::prepare(&self.settings, self.controller.coefficient, rollouts)?;
        let kl = prepared.get(rollout::names::KL)?;
        self.controller.update(kl.iter().sum::<f64>() / kl.len().max(1) as f64, kl.len());
        Ok(prepared)
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        loss::loss(&self.settings, batch)
    }

    fn after_step(&mut self, metrics: &[(String, f64)]) -> Result<Verdict> {
        let target = self.settings.config.target_kl;
        let moved = metrics.iter().any(|(name, kl)| name == metric::APPROX_KL && *kl > target);
        Ok(if target > 0.0 && moved { Verdict::END_ROLLOUT } else { Verdict::CONTINUE })
    }

    /// The coefficient, if it is adaptive.
    fn state(&self) -> Result<Vec<u8>> {
        let changes = self.controller.steering.is_some();
        Ok(if changes { self.controller.coefficient.to_le_bytes().to_vec() } else { Vec::new() })
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        if self.controller.steering.is_none() && state.is_empty() {
            return Ok(());
        }
        let coefficient = state.try_into().ok().map(f64::from_le_bytes).filter(|c| c.is_finite() && *c > 0.0);
        match (coefficient, self.controller.steering) {
            (Some(coefficient), Some(_)) => self.controller.coefficient = coefficient,
            _ => {
                let why = format!(
                    "{} bytes are not a state of PPO with `kl_control = \"{}\"`; resume with the options the run began with",
                    state.len(),
                    self.settings.config.kl_control
                );
                return Err(Error::new(Code::STATE, why));
            }
        }
        Ok(())
    }
}

export_objective!("ppo", Ppo);
