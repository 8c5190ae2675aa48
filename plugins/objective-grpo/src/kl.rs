//! KL to the reference: estimates from one sample per token (Schulman 2020, "Approximating KL divergence").
//!
//! With `d = logp - reference.logp` for a token drawn from the policy; the gradients are means over the policy:
//!
//! | name | estimate of KL(policy to reference) | gradient |
//! |---|---|---|
//! | k1 | d, unbiased, negative for some tokens | 0: it restrains nothing |
//! | k2 | d^2 / 2, biased | the KL's |
//! | k3 | exp(-d) - 1 + d, unbiased, never negative | that of the KL in the other direction |
//!
//! Multiplied by the token's ratio to the policy that sampled, k1 and k3 have the gradient of the KL (`kl_weighted`). In k3 `d` is at
//! least -20: below that the estimate is constant and has no gradient.

use plugin_api::tape::Var;

/// A row of the table.
#[derive(Debug)]
pub struct Estimator {
    /// Its name in the option.
    pub name: &'static str,
    /// Converts the tokens' log-ratios `d` to estimates.
    pub of: for<'t> fn(Var<'t>) -> Var<'t>,
}

/// The estimates.
pub const ESTIMATORS: &[Estimator] = &[
    Estimator { name: "k1", of: |d| d },
    Estimator { name: "k2", of: |d| 0.5 * d.square() },
    Estimator { name: "k3", of: |d| k3(d.clamp(-LOG_RATIO_CAP, f64::INFINITY)) },
];

fn k3(d: Var<'_>) -> Var<'_> {
    (-d).exp() - 1.0 + d
}

/// Above this log-ratio of one token an exponential is meaningless, and soon infinite.
pub const LOG_RATIO_CAP: f64 = 20.0;
