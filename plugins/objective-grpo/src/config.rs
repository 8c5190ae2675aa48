//! Options of GRPO.

use crate::{
    advantages::{BASELINES, SCALES},
    kl::ESTIMATORS,
    surrogates::SURROGATES,
};
use plugin_api::prelude::*;

options! {
    /// Options of GRPO.
    pub struct Config {
        /// What is subtracted from an answer's reward: `group` is the mean over the answers to the same prompt (GRPO),
        /// `leave-one-out` the mean over the *other* answers to it (RLOO), `batch` the mean over the rollout
        /// (REINFORCE++), `none` nothing.
        baseline: String = "group".into(), of BASELINES.iter().map(|row| row.name);
        /// The standard deviation that divides the difference, with Bessel's correction and plus 1e-4: of the rewards
        /// of the `group` (GRPO) or the `batch` (REINFORCE++), or `none` (RLOO, Dr. GRPO).
        scale: String = "group".into(), of SCALES.iter().map(|row| row.name);
        /// `sum-then-normalize` normalises the weighted sum of the rewards. `normalize-then-sum` (GDPO) normalises each
        /// of `rewards` by group, adds them by `reward_weights` and normalises the sum over the rollout.
        aggregation: String = "sum-then-normalize".into(), of ["sum-then-normalize", "normalize-then-sum"];
        /// Names of the experiment's rewards that `normalize-then-sum` reads. The experiment's own weights do not apply
        /// to them.
        rewards: Vec<String> = Vec::new();
        /// The weight of each of `rewards`, in their order; empty: 1 each.
        reward_weights: Vec<f64> = Vec::new();
        /// Names of rewards whose numbers per token are rewards of segments, such as a process reward model's: numbers other
        /// than 0, each at the token where a segment of the answer ends. They add to the advantages of the tokens up to there,
        /// normalised over all segments of the group. A reward's weight in the experiment applies only to its number per
        /// answer.
        token_rewards: Vec<String> = Vec::new();
        /// The surrogate, from the ratio of probabilities now and at the rollout: `clip` clips it (PPO, GRPO), `cispo`
        /// weights the log-probability by the ratio, capped and held constant, `sapo` replaces the clip by a sigmoid,
        /// `reinforce` uses no ratio.
        loss: String = "clip".into(), of SURROGATES.iter().map(|row| row.name);
        /// The ratio of each token (`token`), or of each whole answer, as the geometric mean over its tokens
        /// (`sequence`, GSPO: its clip ranges are near 3e-4 and 4e-4).
        level: String = "token".into(), of ["token", "sequence"];
        /// Clip range of the ratio below 1; above 0 where `loss` reads it.
        clip_low: f64 = 0.2, in 0.0..=1.0;
        /// Clip range of the ratio above 1, above 0 where `loss` reads it; larger than `clip_low` is DAPO's clip-higher (0.28). With `cispo` the cap
        /// is 1 plus it.
        clip_high: f64 = 0.2, from 0.0;
        /// Upper bound of the ratio of answers with a negative advantage, which `clip_high` does not bound
        /// (INTELLECT-2, two-sided clip); above 1 + `clip_high`, or 0 for none.
        delta: f64 = 0.0, from 0.0;
        /// Temperature of `sapo` for tokens with a positive advantage; above 0.
        tau_positive: f64 = 1.0, from 0.0;
        /// Temperature of `sapo` for the other tokens; above 0.
        tau_negative: f64 = 1.05, from 0.0;
        /// What divides the sum over tokens: `sequence` takes the mean of each answer's tokens, then over answers
        /// (GRPO); `token` the mean over all tokens (DAPO); `constant` divides by answers times `max_length` (Dr.
        /// GRPO).
        normaliser: String = "sequence".into(), of ["sequence", "token", "constant"];
        /// The greatest length of an answer in tokens: the experiment's `rollout.max_new_tokens`. Read by `normaliser =
        /// "constant"` and `overlong_buffer`.
        max_length: i64 = 0, from 0;
        /// Weight of the KL to the reference in the loss; 0 reads no reference.
        kl_coef: f64 = 0.0, from 0.0;
        /// Estimator of a token's KL in the loss, from d = logp - reference.logp: `k1` is d (its gradient has mean 0,
        /// so that it restrains nothing), `k2` d^2 / 2 (on policy its gradient is the KL's), `k3` exp(-d) - 1 + d
        /// (GRPO).
        kl: String = "k3".into(), of ESTIMATORS.iter().map(|row| row.name);
        /// Multiply the estimate by the ratio (DeepSeek-V3.2): with `k3` and `level = "token"` its gradient is then the
        /// KL's.
        kl_weighted: bool = false;
        /// Answers longer than `max_length` minus this number of tokens lose reward, up to `overlong_penalty` at
        /// `max_length` (DAPO's soft overlong punishment); 0: none.
        overlong_buffer: i64 = 0, from 0;
        /// The reward that an answer of `max_length` tokens loses.
        overlong_penalty: f64 = 1.0, from 0.0;
        /// Do not learn from truncated answers, those without an end-of-text token. Their rewards still count in the
        /// baseline.
        mask_truncated: bool = false;
        /// Drop the answers to a prompt if all their rewards are equal, and draw answers to as many new prompts (DAPO's dynamic
        /// sampling).
        dynamic: bool = false;
        /// Corrects for a sampler with other probabilities than the policy's (top-p, top-k, rounding; the policy's are read
        /// at the sampler's temperature) by the
        /// weight exp(old_logp - sampler.logp) of each token: `truncate` caps it, `mask` gives tokens above the cap no
        /// gradient, `none` reads no sampler.
        importance: String = "none".into(), of ["none", "truncate", "mask"];
        /// The cap of these weights; above 0.
        importance_cap: f64 = 2.0, from 0.0;
        /// Report the policy's exact entropy, which costs some time in the head; training does not change.
        report_entropy: bool = false;
        /// End the rollout after a step whose `approx_kl` is above this; 0: never.
        target_kl: f64 = 0.0, from 0.0;
    }
}
