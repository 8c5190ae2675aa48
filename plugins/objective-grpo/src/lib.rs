//! Group-relative policy optimisation and its kin, by options: a policy that answers prompts, several answers to each,
//! and no critic.
//!
//! The loss is in [`loss`], the table of surrogates in [`surrogates`], estimates of the KL in [`kl`], advantages in
//! [`advantages`], what is computed for a whole rollout in [`rollout`], the options in [`config`] and [`settings`];
//! this file has the plugin's description.

pub mod advantages;
pub mod config;
pub mod kl;
pub mod loss;
pub mod rollout;
pub mod settings;
pub mod surrogates;

use config::Config;
use loss::metric;
use plugin_api::prelude::*;
use settings::{KL, POLICY, Settings};

/// GRPO; it has no state.
pub struct Grpo {
    settings: Settings,
}

impl ObjectivePlugin for Grpo {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "GRPO and its kin: rewards are compared among the answers to a prompt; no critic".into(),
            formula: FORMULA.into(),
            paper: PAPER.into(),
            data: DataKind::PROMPT,
            terms: terms(),
            metrics: metrics(),
            expectations: expectations(),
            stop_gradients: vec![StopGradient::new(
                loss::HELD_RATIO,
                "The ratio, at most 1 + `clip_high`, which multiplies the log-probability with `loss = \"cispo\"`",
            )],
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self { settings: Settings::new(options)? })
    }
}

const PAPER: &str = "Shao et al. 2024 (GRPO), arXiv 2402.03300, equation 3; Yu et al. 2025 (DAPO), arXiv 2503.14476; \
Liu et al. 2025 (Dr. GRPO), arXiv 2503.20783; Zheng et al. 2025 (GSPO), arXiv 2507.18071; MiniMax 2025 (CISPO), arXiv \
2506.13585; Gao et al. 2025 (SAPO), arXiv 2511.20347; Ahmadian et al. 2024 (RLOO), arXiv 2402.14740; Hu 2025 \
(REINFORCE++), arXiv 2501.03262; Liu et al. 2026 (GDPO), arXiv 2601.05242";

const FORMULA: &str = "ratio r = exp(logp - old_logp), A advantage:
  policy: by `loss`
    clip: -min(r A, clamp(r, 1 - clip_low, 1 + clip_high) A); with delta r is at most delta in the first product
    cispo: -hold(min(r, 1 + clip_high)) A logp
    sapo: -4 / tau sigmoid(tau (r - 1)) A, tau = tau_positive if A > 0, else tau_negative
    reinforce: -A logp
    times the capped importance weight exp(old_logp - sampler.logp) with `importance`
  kl: k3 = exp(-d) - 1 + d, d = logp - reference.logp, or k1 = d, k2 = d^2 / 2, times kl_coef
  A is the reward of the answer minus `baseline`, divided by (`scale` + 1e-4): by default mean and standard deviation \
(with Bessel's correction) of the rewards of all answers to the prompt
  `normaliser`: the mean over each answer's tokens, then over answers; over all tokens; or the sum over tokens divided by \
answers times max_length
  With the defaults GRPO. DAPO: normaliser token, clip_high 0.28, dynamic, overlong_buffer. Dr. GRPO: scale none, normaliser \
constant. GSPO: level sequence. RLOO: loss reinforce, baseline leave-one-out, scale none. REINFORCE++: baseline batch, \
scale batch";

fn terms() -> Vec<TermSpec> {
    let per_answer = |name, meaning| TermSpec::new(name, Normaliser::SEQUENCES, meaning);
    vec![
        per_answer(
            POLICY,
            "The surrogate: near 0 where the advantages of a group add up to 0; divided as `normaliser` says",
        ),
        per_answer(KL, "KL to the reference in nats per token; only with `kl_coef` above 0"),
    ]
}

fn metrics() -> Vec<MetricSpec> {
    let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
    let healthy = |name, meaning, range| MetricSpec { healthy: Some(range), ..mean(name, meaning) };
    vec![
        mean(
            metric::REWARD,
            "Reward of an answer after the penalty for long answers; mean over the rollout, without the prompts that `dynamic` replaced",
        ),
        mean(
            metric::SPREAD,
            "Standard deviation of the rewards in an answer's group; mean over the answers that `rewards/mean` counts; at 0 nothing is \
             learned with the group's baselines",
        ),
        healthy(
            metric::EQUAL,
            "Share of the answers that `rewards/mean` counts in whose group all rewards are equal: the group's baselines teach nothing there. With `dynamic` the \
             host's `answers/kept` is the share of answers that were kept",
            (0.0, 0.9),
        ),
        healthy(
            metric::CLIP_LOW,
            "Share of tokens with a negative advantage and a ratio below 1 - `clip_low`, which have no gradient; of \
             answers with `level = \"sequence\"`; only with `loss = \"clip\"`",
            (0.0, 0.4),
        ),
        healthy(
            metric::CLIP_HIGH,
            "Share of tokens with a positive advantage and a ratio above 1 + `clip_high`, which have no gradient; of \
             answers with `level = \"sequence\"`; with `loss = \"cispo\"` of all tokens whose ratio is capped; else absent",
            (0.0, 0.4),
        ),
        healthy(
            metric::RATIO,
            "Probability of a token (of an answer with `level = \"sequence\"`) now, over that when it was sampled; 1 at first",
            (0.8, 1.25),
        ),
        MetricSpec {
            healthy: Some((0.0, 50.0)),
            ..MetricSpec::new(metric::RATIO_MAX, Reduction::MAX, "The greatest ratio")
        },
        healthy(
            metric::APPROX_KL,
            "KL to the policy that answered, in nats per token: half the mean square of the log-ratio; see `target_kl`",
            (0.0, 0.1),
        ),
        mean(
            metric::KL,
            "KL to the reference in nats per token, by the estimator of the loss; only with `kl_coef` above 0",
        ),
        mean(
            metric::ENTROPY,
            "Entropy of the policy's distribution in nats per token; only with `report_entropy = true`",
        ),
        mean(metric::LENGTH, "Supervised tokens per answer, the end-of-text token included"),
        healthy(
            metric::TRUNCATED,
            "Share of the answers that `rewards/mean` counts that were truncated and did not end by themselves",
            (0.0, 0.75),
        ),
        healthy(
            metric::IMPORTANCE,
            "Importance weight of a token against the sampler, as used: 1 if the answers were drawn from the policy's \
             own probabilities; only with `importance`",
            (0.5, 1.5),
        ),
        healthy(
            metric::IMPORTANCE_CAPPED,
            "Share of tokens whose importance weight is above `importance_cap`; only with `importance`",
            (0.0, 0.1),
        ),
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
    vec![expect(metric::RATIO, "1"), expect(metric::CLIP_LOW, "0"), expect(metric::CLIP_HIGH, "0")]
}

impl Objective for Grpo {
    fn requirements(&self) -> Result<Requirements> {
        Ok(self.settings.requirements())
    }

    fn prepare(&mut self, rollouts: &Batch<'_>) -> Result<Batch<'static>> {
        rollout::prepare(&self.settings, rollouts)
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        loss::loss(&self.settings, batch)
    }

    fn after_step(&mut self, metrics: &[(String, f64)]) -> Result<Verdict> {
        let target = self.settings.config.target_kl;
        let moved = metrics.iter().any(|(name, kl)| name == metric::APPROX_KL && *kl > target);
        Ok(if target > 0.0 && moved { Verdict::END_ROLLOUT } else { Verdict::CONTINUE })
    }
}

export_objective!("grpo", Grpo);
