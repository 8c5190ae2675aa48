//! Reward ranking: a scalar head learns to score the chosen answer of a pair above the rejected one.
//!
//! The maths is in [`loss`], the options in [`config`]; this file has the plugin's description.

pub mod config;
pub mod loss;

use config::Config;
use loss::metric;
use plugin_api::prelude::*;

/// Reward ranking after Bradley and Terry.
pub struct Ranking {
    config: Config,
}

impl ObjectivePlugin for Ranking {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "A reward model: scores the chosen answer of a pair above the rejected one".into(),
            formula: "per pair, -log sigmoid(score_c - score_r - margin) + centering (score_c + score_r)^2; margin is the data's \
                      column `margin`, 0 where it has none"
                .into(),
            paper: "Ouyang et al. 2022 (InstructGPT), arXiv 2203.02155, equation 1; margin: Touvron et al. 2023 (Llama 2), arXiv \
                    2307.09288, equation 2; centering: Eisenstein et al. 2023, arXiv 2312.09244"
                .into(),
            data: DataKind::PREFERENCE,
            terms: vec![
                TermSpec::new(
                    loss::RANKING,
                    Normaliser::PAIRS,
                    "Negative log-likelihood that the chosen answer wins by the margin, in nats",
                ),
                TermSpec::new(
                    loss::CENTERING,
                    Normaliser::PAIRS,
                    "Square of the pair's summed scores; only with `centering` above 0",
                ),
            ],
            metrics: metrics(),
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self { config: options })
    }
}

fn metrics() -> Vec<MetricSpec> {
    vec![
        MetricSpec::new(
            metric::ACCURACY,
            Reduction::MEAN,
            "Share of pairs whose chosen answer has the greater score; the margin column is not subtracted, and a tie does not count",
        ),
        MetricSpec::new(metric::MARGIN, Reduction::MEAN, "Score of the chosen answer minus that of the rejected one"),
        MetricSpec::new(metric::SCORE_MEAN, Reduction::MEAN, "Score, over both sides"),
        MetricSpec::new(
            metric::SCORE_MEAN_SQUARE,
            Reduction::MEAN,
            "Square of the score; minus the square of the mean, this is the scores' variance",
        ),
        MetricSpec::new(metric::SCORE_MIN, Reduction::MIN, "Smallest score"),
        MetricSpec::new(metric::SCORE_MAX, Reduction::MAX, "Largest score"),
    ]
}

impl Objective for Ranking {
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements::reading(["score"]))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        loss::loss(&self.config, batch)
    }
}

export_objective!("reward", Ranking);
