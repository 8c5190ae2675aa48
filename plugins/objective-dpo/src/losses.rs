//! The table of losses: each is a function of a pair's log-ratios.
//!
//! For answer y, `x(y) = log pi(y) - log ref(y)` for policy pi and reference ref, where a sequence's log-probability is the *sum*
//! over its supervised tokens, or their *mean* if the table says "mean". `c` is the chosen answer, `r` the rejected one, and `m =
//! x(c) - x(r)` the margin; `s` is the sigmoid, `eps` is `label_smoothing`. Every function takes and returns `[P]`, one value per
//! pair, to be minimised.
//!
//! Where other implementations differ, these follow TRL: `sigmoid` applies `label_smoothing` (0.16.1; 1.16.0 leaves it out), `ipo`
//! averages (as in its paper and TRL; OpenRLHF sums), `exo` refuses an `eps` of 0 (1.16.0; 0.16.1 uses 0.001), `bco` is
//! not shifted by a running mean of rewards (1.16.0), `sppo` is the form for hard labels.

use plugin_api::tape::Var;
use std::fmt;

/// The options that losses read.
#[derive(Clone, Copy, Debug)]
pub struct LossOptions {
    /// Scale of the implicit reward.
    pub beta: f64,
    /// Share of pairs whose sides are assumed to be exchanged.
    pub label_smoothing: f64,
    /// Temperature of the mixing weight in `discopop`.
    pub discopop_tau: f64,
}

/// A row of the table.
#[derive(Debug)]
pub struct PreferenceLoss {
    /// Its name in the option.
    pub name: &'static str,
    /// Whether a sequence's log-probability is the mean over its tokens instead of the sum.
    pub averages: bool,
    /// Whether it reads `label_smoothing`.
    pub smooths: bool,
    /// The formula in the notation above.
    pub formula: &'static str,
    /// The paper or other source.
    pub paper: &'static str,
    /// The maths.
    pub shape: Shape,
}

/// Both answers of each pair, `[P]` each.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'t> {
    /// Of the chosen answers.
    pub chosen: Var<'t>,
    /// Of the rejected answers.
    pub rejected: Var<'t>,
}

impl<'t> Sides<'t> {
    /// Chosen minus rejected.
    pub fn margin(self) -> Var<'t> {
        self.chosen - self.rejected
    }
}

/// What a loss reads.
#[derive(Clone, Copy)]
pub enum Shape {
    /// Only the margin; an f-divergence may replace the log-ratio there.
    Margin(for<'t> fn(Var<'t>, &LossOptions) -> Var<'t>),
    /// Both log-ratios.
    Ratios(for<'t> fn(Sides<'t>, &LossOptions) -> Var<'t>),
    /// Log-probabilities of policy and reference, sorted over the batch: the loss couples the batch. The returned values belong to
    /// ranks, not to pairs.
    Sorted(for<'t> fn(Sides<'t>, Sides<'t>, &LossOptions) -> Var<'t>),
    /// No loss of pairs: the chosen answers' likelihood is the whole loss.
    None,
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shape::Margin(_) => "margin",
            Shape::Ratios(_) => "ratios",
            Shape::Sorted(_) => "sorted",
            Shape::None => "none",
        })
    }
}

const fn row(name: &'static str, shape: Shape, formula: &'static str, paper: &'static str) -> PreferenceLoss {
    PreferenceLoss { name, averages: false, smooths: false, formula, paper, shape }
}

impl PreferenceLoss {
    const fn averaging(self) -> Self {
        Self { averages: true, ..self }
    }

    const fn smoothing(self) -> Self {
        Self { smooths: true, ..self }
    }
}

/// The losses; the first is the default. A row is all that a loss needs: the option's choices, the manifest's formula and the tests
/// read them here.
pub const LOSSES: &[PreferenceLoss] = &[
    row(
        "sigmoid",
        Shape::Margin(sigmoid),
        "-(1 - eps) log s(beta m) - eps log s(-beta m)",
        "DPO: Rafailov et al. 2023, arXiv 2305.18290, equation 7; eps: Mitchell 2023 (cDPO)",
    )
    .smoothing(),
    row(
        "sigmoid-norm",
        Shape::Margin(sigmoid),
        "-(1 - eps) log s(beta m) - eps log s(-beta m)",
        "length-normalised DPO: Lambert et al. 2024 (Tulu 3), arXiv 2411.15124",
    )
    .averaging()
    .smoothing(),
    row(
        "robust",
        Shape::Margin(robust),
        "(-(1 - eps) log s(beta m) + eps log s(-beta m)) / (1 - 2 eps)",
        "Chowdhury et al. 2024, arXiv 2403.00409",
    )
    .smoothing(),
    row(
        "hinge",
        Shape::Margin(hinge),
        "max(0, 1 - beta m)",
        "SLiC: Zhao et al. 2023, arXiv 2305.10425; normalised: Liu et al. 2023 (RSO), arXiv 2309.06657",
    ),
    row("ipo", Shape::Margin(ipo), "(m - 1 / (2 beta))^2", "Azar et al. 2023, arXiv 2310.12036, equation 17")
        .averaging(),
    row(
        "exo",
        Shape::Margin(exo),
        "KL between (s(beta m), s(-beta m)) and (1 - eps, eps)",
        "Ji et al. 2024, arXiv 2402.00856, two answers",
    )
    .smoothing(),
    row(
        "nca",
        Shape::Ratios(nca),
        "-log s(beta x(c)) - (log s(-beta x(c)) + log s(-beta x(r))) / 2",
        "Chen et al. 2024, arXiv 2402.05369, two answers",
    ),
    row(
        "sppo",
        Shape::Ratios(sppo),
        "(x(c) - 1 / (2 beta))^2 + (x(r) + 1 / (2 beta))^2",
        "Wu et al. 2024, arXiv 2405.00675, hard labels",
    ),
    row(
        "bco",
        Shape::Ratios(bco),
        "-log s(beta x(c)) - log s(-beta x(r))",
        "Jung et al. 2024, arXiv 2404.04656, shift 0",
    ),
    row(
        "apo-zero",
        Shape::Ratios(apo_zero),
        "s(-beta x(c)) + s(beta x(r))",
        "D'Oosterlinck et al. 2024, arXiv 2408.06266",
    ),
    row(
        "apo-down",
        Shape::Ratios(apo_down),
        "s(beta x(c)) + s(-beta m)",
        "D'Oosterlinck et al. 2024, arXiv 2408.06266",
    ),
    row(
        "aot",
        Shape::Sorted(aot),
        "as sigmoid, m = (k-th smallest margin of the policy) - (k-th smallest margin of the reference)",
        "Melnyk et al. 2024, arXiv 2406.05882, paired",
    )
    .smoothing(),
    row(
        "aot-unpaired",
        Shape::Sorted(aot_unpaired),
        "as sigmoid, m = (k-th smallest x(c)) - (k-th smallest x(r))",
        "Melnyk et al. 2024, arXiv 2406.05882, unpaired",
    )
    .smoothing(),
    row(
        "discopop",
        Shape::Margin(discopop),
        "-(1 - w) log s(beta m) + w exp(-beta m), w = s(beta m / tau)",
        "Lu et al. 2024, arXiv 2406.08414, log-ratio modulated",
    ),
    row("sft", Shape::None, "none: the term `sft` alone", "Pang et al. 2024, arXiv 2404.19733 (the likelihood term)"),
];

fn sigmoid<'t>(margin: Var<'t>, options: &LossOptions) -> Var<'t> {
    let (logit, eps) = (options.beta * margin, options.label_smoothing);
    (eps - 1.0) * logit.log_sigmoid() - eps * (-logit).log_sigmoid()
}

fn robust<'t>(margin: Var<'t>, options: &LossOptions) -> Var<'t> {
    let (logit, eps) = (options.beta * margin, options.label_smoothing);
    ((eps - 1.0) * logit.log_sigmoid() + eps * (-logit).log_sigmoid()) / (1.0 - 2.0 * eps)
}

fn hinge<'t>(margin: Var<'t>, options: &LossOptions) -> Var<'t> {
    (1.0 - options.beta * margin).relu()
}

fn ipo<'t>(margin: Var<'t>, options: &LossOptions) -> Var<'t> {
    (margin - 0.5 / options.beta).square()
}

/// The policy's distribution comes first in this KL: it is the reverse KL, after which EXO is named.
fn exo<'t>(margin: Var<'t>, options: &LossOptions) -> Var<'t> {
    let (logit, eps) = (options.beta * margin, options.label_smoothing);
    let part = |logit: Var<'t>, target: f64| logit.sigmoid() * (logit.log_sigmoid() - target.ln());
    part(logit, 1.0 - eps) + part(-logit, eps)
}

fn nca<'t>(ratio: Sides<'t>, options: &LossOptions) -> Var<'t> {
    let (chosen, rejected) = (options.beta * ratio.chosen, options.beta * ratio.rejected);
    -chosen.log_sigmoid() - 0.5 * ((-chosen).log_sigmoid() + (-rejected).log_sigmoid())
}

fn sppo<'t>(ratio: Sides<'t>, options: &LossOptions) -> Var<'t> {
    let target = 0.5 / options.beta;
    (ratio.chosen - target).square() + (ratio.rejected + target).square()
}

fn bco<'t>(ratio: Sides<'t>, options: &LossOptions) -> Var<'t> {
    -(options.beta * ratio.chosen).log_sigmoid() - (-options.beta * ratio.rejected).log_sigmoid()
}

fn apo_zero<'t>(ratio: Sides<'t>, options: &LossOptions) -> Var<'t> {
    (-options.beta * ratio.chosen).sigmoid() + (options.beta * ratio.rejected).sigmoid()
}

fn apo_down<'t>(ratio: Sides<'t>, options: &LossOptions) -> Var<'t> {
    (options.beta * ratio.chosen).sigmoid() + (-options.beta * ratio.margin()).sigmoid()
}

fn aot<'t>(policy: Sides<'t>, reference: Sides<'t>, options: &LossOptions) -> Var<'t> {
    sigmoid(policy.margin().sort() - reference.margin().sort(), options)
}

fn aot_unpaired<'t>(policy: Sides<'t>, reference: Sides<'t>, options: &LossOptions) -> Var<'t> {
    let chosen = (policy.chosen - reference.chosen).sort();
    sigmoid(chosen - (policy.rejected - reference.rejected).sort(), options)
}

/// As published, it increases with the margin around 0 (for `tau` below (1 - log 2) / 3, about 0.1): there descent lowers the
/// chosen answer. The exponential and its weight are computed as one exponential: separately they are infinity and 0 at a margin
/// of -750 / beta.
fn discopop<'t>(margin: Var<'t>, options: &LossOptions) -> Var<'t> {
    let logit = options.beta * margin;
    let modulation = logit / options.discopop_tau;
    (modulation.log_sigmoid() - logit).exp() - (-modulation).sigmoid() * logit.log_sigmoid()
}
