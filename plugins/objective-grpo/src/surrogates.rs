//! The table of surrogates: the loss of a token from its ratio `r` and advantage `A`.
//!
//! | name | loss | source |
//! |---|---|---|
//! | clip | `-min(min(r, delta) A, clamp(r, 1 - clip_low, 1 + clip_high) A)` | Schulman et al. 2017 (PPO), equation 7 |
//! | cispo | `-hold(min(r, 1 + clip_high)) A logp` | MiniMax 2025, arXiv 2506.13585, equation 4 |
//! | sapo | `-4 / tau sigmoid(tau (r - 1)) A`, tau by the sign of A | Gao et al. 2025, arXiv 2511.20347 |
//! | reinforce | `-A logp` | Williams 1992; RLOO: Ahmadian et al. 2024, arXiv 2402.14740 |
//!
//! PPO is arXiv 1707.06347; clip ranges that differ below and above are DAPO's (arXiv 2503.14476), `delta` is
//! INTELLECT-2's (arXiv 2505.07291). `hold` keeps its value constant in the gradient. CISPO has no lower bound, as in the
//! paper's experiments. TRL's `epsilon_high` of CISPO is the cap itself; here 1 is added, as in the paper.

use crate::config::Config;
use plugin_api::tape::{Tape, Var};

/// What a surrogate reads, `[N]` each.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'t> {
    /// Log-probability now.
    pub logp: Var<'t>,
    /// The ratio to the rollout's probability, of the token or of its answer.
    pub ratio: Var<'t>,
    /// `min(ratio, 1 + clip_high)`, held constant in the gradient.
    pub held: Var<'t>,
    /// The advantage.
    pub advantage: Var<'t>,
}

/// A row of the table.
#[derive(Debug)]
pub struct Surrogate {
    /// Its name in the option.
    pub name: &'static str,
    /// Whether a ratio below `1 - clip_low`, and one above `1 + clip_high`, is clipped.
    pub clips: [bool; 2],
    /// The loss of every token.
    pub of: for<'t> fn(Tokens<'t>, &'t Tape, &Config) -> Var<'t>,
}

/// The surrogates; the first is the default.
pub const SURROGATES: &[Surrogate] = &[
    Surrogate { name: "clip", clips: [true, true], of: clip },
    Surrogate { name: "cispo", clips: [false, true], of: |x, _, _| -(x.held * x.advantage * x.logp) },
    Surrogate { name: "sapo", clips: [false, false], of: sapo },
    Surrogate { name: "reinforce", clips: [false, false], of: |x, _, _| -(x.advantage * x.logp) },
];

fn clip<'t>(x: Tokens<'t>, _: &'t Tape, config: &Config) -> Var<'t> {
    let bounded = if config.delta > 0.0 { x.ratio.clamp(0.0, config.delta) } else { x.ratio };
    let clipped = x.ratio.clamp(1.0 - config.clip_low, 1.0 + config.clip_high);
    -(bounded * x.advantage).min(clipped * x.advantage)
}

fn sapo<'t>(x: Tokens<'t>, tape: &'t Tape, config: &Config) -> Var<'t> {
    let positive = x.advantage.gt(0.0).to_f64();
    let by_sign = |positive: &f64| if *positive == 1.0 { config.tau_positive } else { config.tau_negative };
    let tau = tape.constant(positive.iter().map(by_sign).collect::<Vec<f64>>());
    -((tau * (x.ratio - 1.0)).sigmoid() * (4.0 * x.advantage) / tau)
}
