//! Cross-entropy on every supervised token: pre-training on running text, or on the tokens that the mask selects.
//!
//! The maths is in [`loss`], the options in [`config`]; this file has the plugin's description.

pub mod config;
pub mod loss;

use config::Config;
use plugin_api::prelude::*;

/// Cross-entropy, with optional label smoothing and z-loss.
pub struct CrossEntropy {
    config: Config,
}

impl ObjectivePlugin for CrossEntropy {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Cross-entropy on running text, or on any supervised tokens".into(),
            formula: "sum over supervised tokens of (1 - eps) (-logp) + eps (lse - mean_logit) + z_loss lse^2".into(),
            paper: "Label smoothing: Szegedy et al. 2016, arXiv 1512.00567, section 7; z-loss: Chowdhery et al. 2022 \
                    (PaLM), arXiv 2204.02311, section 5"
                .into(),
            data: DataKind::TEXT,
            roles: vec![Role {
                name: "policy".into(),
                trains: true,
                optional: false,
                statistics: vec![Statistic::LOGP, Statistic::LSE, Statistic::MEAN_LOGIT],
            }],
            terms: vec![
                TermSpec::new(
                    loss::CROSS_ENTROPY,
                    Normaliser::SUPERVISED_TOKENS,
                    "Cross-entropy with the smoothed target, in nats",
                ),
                TermSpec::new(
                    loss::Z_LOSS,
                    Normaliser::SUPERVISED_TOKENS,
                    "Square of the log-partition function; there only where `z_loss` is above 0",
                ),
            ],
            metrics: vec![
                MetricSpec::new(
                    loss::NLL,
                    Reduction::MEAN,
                    "Negative log-likelihood of the targets, in nats per token, never smoothed",
                ),
                MetricSpec::new(
                    loss::LOG_Z,
                    Reduction::MEAN,
                    "Log-partition function, which the z-loss pulls to 0; there only where `z_loss` is above 0",
                ),
            ],
            expectations: vec![Expectation {
                quantity: loss::CROSS_ENTROPY.into(),
                value: "ln_vocab".into(),
                tolerance: 0.1,
                when: "the weights are freshly initialised, so that the logits are nearly uniform".into(),
            }],
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        options.check()?;
        Ok(Self { config: options })
    }
}

impl Objective for CrossEntropy {
    fn requirements(&self) -> Result<Requirements> {
        Ok(self.config.requirements())
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        loss::loss(&self.config, batch)
    }
}

export_objective!("ce", CrossEntropy);
