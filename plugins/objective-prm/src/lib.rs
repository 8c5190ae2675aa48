//! Process reward model: a scalar head learns to score every segment of an answer (the papers call it a step).
//!
//! The maths is in [`loss`]; this file has the plugin's description.

pub mod loss;

use loss::{BCE, metric};
use plugin_api::prelude::*;

options! {
    /// Options of process reward models.
    pub struct Config {
        /// Learn only the label of each answer's last segment: an outcome reward model.
        last_only: bool = false;
    }
}

/// A process reward model.
pub struct ProcessReward(Config);

impl ObjectivePlugin for ProcessReward {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            summary: "A process reward model: scores each segment of an answer by whether the answer is right so far".into(),
            formula: "per segment (a step of a solution, for example), -(y log sigmoid(s) + (1 - y) log sigmoid(-s)); s is the score \
                      after the segment, y the segment's value in the data's column `labels`, a list of numbers from 0 to 1"
                .into(),
            paper: "Lightman et al. 2023 (Let's Verify Step by Step), arXiv 2305.20050, section 2.6; labels as soft targets: \
                    Wang et al. 2024 (Math-Shepherd), arXiv 2312.08935, equation 2"
                .into(),
            data: DataKind::PROMPT_COMPLETION,
            terms: vec![TermSpec::new(BCE, Normaliser::CUSTOM, "Binary cross-entropy per labelled segment, in nats")],
            metrics: vec![
                mean(metric::ACCURACY, "Share of segments on the right side: score above 0 and label above 0.5, or neither"),
                mean(metric::RIGHT, "Score of the segments whose label is above 0.5"),
                mean(metric::WRONG, "Score of the other segments"),
            ],
            expectations: vec![Expectation {
                quantity: BCE.into(),
                value: std::f64::consts::LN_2.to_string(),
                tolerance: 1e-6,
                when: "the scalar head is new, so that every score is 0".into(),
            }],
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Objective for ProcessReward {
    fn requirements(&self) -> Result<Requirements> {
        let labels =
            ObjectiveColumn { name: loss::LABELS.into(), per_segment: true, least: Some(0.0), most: Some(1.0) };
        Ok(Requirements { columns: vec![labels], ..Requirements::reading(["token_score"]) })
    }

    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        Ok(vec![(BCE.to_owned(), loss::segments(batch, self.0.last_only)?.iter().sum())])
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        loss::loss(batch, self.0.last_only)
    }
}

export_objective!("prm", ProcessReward);
