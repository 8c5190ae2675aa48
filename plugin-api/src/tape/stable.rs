//! Scalar functions whose textbook formulas overflow or lose digits, each stable over the whole range of f64. Public, because
//! metrics and hand-derived cotangents need the same numbers as the tape.

use std::f64::consts::LN_2;

/// `1 / (1 + exp(-x))`. This formula is safe: where `exp(-x)` overflows, the result is 0 to within 1e-308. Its complement is
/// `sigmoid(-x)`, not `1 - sigmoid(x)`, which is 0 for `x` above 37.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `log(1 / (1 + exp(-x)))`. Tends to `x` for very negative `x` (-800 gives -800, not -inf) and to -0 on the other side.
pub fn log_sigmoid(x: f64) -> f64 {
    -softplus(-x)
}

/// `log(1 + exp(x))`, which is `-log_sigmoid(-x)`.
pub fn softplus(x: f64) -> f64 {
    // The exponent is never positive, so nothing overflows; ln_1p keeps what 1 + tiny would drop.
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `log(1 - exp(x))` for `x < 0`: the log-probability of "not that", given a log-probability. Zero gives -inf, a positive
/// `x` NaN.
///
/// Maechler (2012), "Accurately computing log(1 - exp(-|a|))": change the formula at `-ln 2`, because `exp(x)` near 1
/// loses the digits of a small `x` and `1 - exp(x)` near 1 loses those of a small `exp(x)`.
pub fn log1mexp(x: f64) -> f64 {
    if x > -LN_2 { (-x.exp_m1()).ln() } else { (-x.exp()).ln_1p() }
}
