//! KL to the reference: estimates from one sample per token, and the adaptive coefficient.
//!
//! With `d = logp - reference.logp` for a token drawn from the policy (Schulman 2020, "Approximating KL divergence"):
//!
//! | name | estimate of KL(policy || reference) | |
//! |---|---|---|
//! | k1 | d | unbiased; negative for some tokens |
//! | k2 | d^2 / 2 | biased, of low variance; TRL's `mse` |
//! | k3 | exp(-d) - 1 + d | unbiased, never negative |
//! | abs | abs(d) | a distance rather than an estimate |
//!
//! Here they only enter rewards. In a loss, neither k1 nor k3 has the gradient of the KL.

/// A row of the table.
#[derive(Debug)]
pub struct Estimator {
    /// Its name in the option.
    pub name: &'static str,
    /// Converts a token's log-ratio to its penalty.
    pub of: fn(f64) -> f64,
}

/// The estimates; the first is the default.
pub const ESTIMATORS: &[Estimator] = &[
    Estimator { name: "k1", of: |d| d },
    Estimator { name: "k2", of: |d| 0.5 * d * d },
    Estimator { name: "k3", of: |d| (-d).min(LOG_RATIO_CAP).exp() - 1.0 + d },
    Estimator { name: "abs", of: f64::abs },
];

/// Above this log-ratio of one token an exponential is meaningless, and soon infinite.
pub const LOG_RATIO_CAP: f64 = 20.0;

/// The penalty's coefficient (Ziegler et al. 2019, arXiv 1909.08593, section 2.2, as in TRL's `AdaptiveKLController`): after a
/// rollout of n answers with a mean KL of k,
///
/// ```text
/// error = clamp(k / target - 1, -0.2, 0.2)        coefficient <- coefficient (1 + error n / horizon)
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Controller {
    /// The factor of penalties.
    pub coefficient: f64,
    /// Target in nats per answer and horizon in answers; `None` if the coefficient is fixed.
    pub steering: Option<(f64, f64)>,
}

/// The largest relative error that a rollout can contribute, as a share of the target.
const ERROR_CAP: f64 = 0.2;

impl Controller {
    /// Updates the coefficient after a rollout whose `answers` had a mean KL of `kl` nats each.
    pub fn update(&mut self, kl: f64, answers: usize) {
        if let Some((target, horizon)) = self.steering
            && answers > 0
        {
            let error = (kl / target - 1.0).clamp(-ERROR_CAP, ERROR_CAP);
            // Rollouts longer than five horizons could turn the sign; the coefficient must stay positive.
            self.coefficient *= (1.0 + error * answers as f64 / horizon).max(SMALLEST_FACTOR);
        }
    }
}

const SMALLEST_FACTOR: f64 = 0.1;
