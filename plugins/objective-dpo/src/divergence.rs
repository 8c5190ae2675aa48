//! f-divergences (Wang et al. 2023, arXiv 2309.16240): how an answer's log-ratio `x = log pi - log ref` becomes the score that
//! replaces it in the margin. The reward under a penalty `beta D_f(pi || ref)` is `beta f'(pi / ref)` up to a constant of the
//! prompt, which cancels in the margin; the table has `f'` as a function of `x`, without constants.
//!
//! | name | f(u) | f'(exp x) |
//! |---|---|---|
//! | reverse-kl | u log u | x |
//! | forward-kl | -log u | -exp(-x) |
//! | js | u log u - (u + 1) log((u + 1) / 2) | log sigmoid(x) |
//! | alpha | (u^(1 - a) - (1 - a) u - a) / (a (a - 1)) | -exp(-a x) / a |

use plugin_api::tape::Var;

/// A row of the table.
#[derive(Debug)]
pub struct Divergence {
    /// Its name in the option.
    pub name: &'static str,
    /// Converts log-ratios to scores, both `[P]`; the number is `divergence_alpha`.
    pub score: for<'t> fn(Var<'t>, f64) -> Var<'t>,
}

/// The divergences; the first is DPO's own.
pub const DIVERGENCES: &[Divergence] = &[
    Divergence { name: "reverse-kl", score: |x, _| x },
    Divergence { name: "forward-kl", score: |x, _| -capped_exp(-x) },
    Divergence { name: "js", score: |x, _| x.log_sigmoid() },
    Divergence { name: "alpha", score: |x, alpha| -capped_exp(-alpha * x) / alpha },
];

/// Above the cap an exponential would be infinite; the gradient is 0 there, as in other implementations.
const EXPONENT_CAP: f64 = 700.0;

fn capped_exp(x: Var<'_>) -> Var<'_> {
    x.clamp(f64::NEG_INFINITY, EXPONENT_CAP).exp()
}
