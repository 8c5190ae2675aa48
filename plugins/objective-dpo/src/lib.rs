//! Direct preference optimisation and related losses: pairs of answers, a policy and a frozen reference.
//!
//! The maths is in [`loss`], the table of losses in [`losses`], f-divergences in [`divergence`], the options in [`config`] and
//! [`settings`]; this file has the plugin's description.

pub mod config;
pub mod divergence;
pub mod loss;
pub mod losses;
pub mod settings;

use config::Config;
use loss::metric;
use losses::LOSSES;
use plugin_api::prelude::*;
use settings::Settings;
use std::fmt::Write;

/// Direct preference optimisation.
pub struct Dpo {
    settings: Settings,
}

impl ObjectivePlugin for Dpo {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Direct preference optimisation: prefers the chosen answer to the rejected one, near a reference"
                .into(),
            formula: formula(),
            paper:
                "Rafailov et al. 2023 (DPO), arXiv 2305.18290, equation 7; the formula names the other losses' papers. \
                    f-divergences: Wang et al. 2023, arXiv 2309.16240; ld_alpha: Liu et al. 2024, arXiv 2409.06411"
                    .into(),
            data: DataKind::PREFERENCE,
            terms: terms(),
            metrics: metrics(),
            // No expectation holds under every loss, and the host does not consider options here: see the tests of gotcha 16.
            expectations: Vec::new(),
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self { settings: Settings::new(options)? })
    }
}

/// The table of losses as text, each with how it reduces a sequence's log-probabilities.
fn formula() -> String {
    let mut text = "x = log pi(y) - log ref(y) of answer y, m = x(chosen) - x(rejected), s = sigmoid, eps = label_smoothing; log pi(y) is \
                    the sum or the mean of y's token log-probabilities. By `loss`:"
        .to_owned();
    for loss in LOSSES {
        let convention = if loss.averages { "mean" } else { "sum" };
        // Writing to a string cannot fail.
        _ = write!(text, "\n  {} ({convention}): {} [{}]", loss.name, loss.formula, loss.paper);
    }
    text
}

fn terms() -> Vec<TermSpec> {
    vec![
        TermSpec::new(loss::PREFERENCE, Normaliser::PAIRS, "The preference loss; absent with `loss = \"sft\"`"),
        TermSpec::new(
            loss::SFT,
            Normaliser::CUSTOM,
            "Negative log-likelihood per supervised token of the chosen answers, in nats; only with `sft_weight` \
             above 0, or with `loss = \"sft\"`",
        ),
    ]
}

fn metrics() -> Vec<MetricSpec> {
    let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
    vec![
        mean(metric::CHOSEN, "Implicit reward of the chosen answer, beta times its summed log-ratio"),
        mean(metric::REJECTED, "Implicit reward of the rejected answer"),
        mean(metric::MARGIN, "Reward of the chosen less that of the rejected answer"),
        mean(metric::ACCURACY, "Share of pairs whose chosen answer has the greater reward; a tie does not count"),
        mean(
            metric::LOGPS_CHOSEN,
            "Log-probability of the chosen answer, summed over its tokens, in nats; it may fall while the margin grows",
        ),
        mean(metric::LOGPS_REJECTED, "Log-probability of the rejected answer, summed over its tokens, in nats"),
        mean(
            metric::KL,
            "Nats per answer, both sides: sum over tokens of exp(d) - 1 - d, d = logp - reference.logp (capped at 20 in the \
             exponential): estimates KL(reference || policy) where the reference wrote the answers, elsewhere only a \
             distance; absent with `reference_free`",
        ),
    ]
}

impl Objective for Dpo {
    fn requirements(&self) -> Result<Requirements> {
        Ok(self.settings.requirements())
    }

    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        Ok(vec![(loss::SFT.to_owned(), loss::chosen_tokens(batch)?)])
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        loss::loss(&self.settings, batch)
    }
}

export_objective!("dpo", Dpo);
