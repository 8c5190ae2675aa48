//! Instruction tuning: cross-entropy on the completion's tokens, given the prompt.
//!
//! The maths is in [`loss`], the options in [`config`]; this file has the plugin's description.

pub mod config;
pub mod loss;

use config::Config;
use plugin_api::prelude::*;

/// Supervised fine-tuning on prompts with completions.
pub struct SupervisedFineTuning {
    config: Config,
}

impl ObjectivePlugin for SupervisedFineTuning {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Cross-entropy on the completion alone, given the prompt: instruction tuning".into(),
            formula: "sum over the completion's tokens, its end-of-text token included, of \
                      (1 - eps) (-logp) + eps (lse - mean_logit)"
                .into(),
            paper: "Ouyang et al. 2022 (InstructGPT), arXiv 2203.02155, section 3.5; label smoothing: Szegedy et al. 2016, \
                    arXiv 1512.00567, section 7"
                .into(),
            data: DataKind::PROMPT_COMPLETION,
            roles: vec![Role {
                name: "policy".into(),
                trains: true,
                optional: false,
                statistics: vec![Statistic::LOGP, Statistic::LSE, Statistic::MEAN_LOGIT],
            }],
            terms: vec![TermSpec::new(
                loss::COMPLETION,
                Normaliser::SUPERVISED_TOKENS,
                "Cross-entropy of the completion's tokens with the smoothed target, in nats; long completions weigh more",
            )],
            metrics: vec![
                MetricSpec::new(
                    loss::NLL,
                    Reduction::MEAN,
                    "Negative log-likelihood of the completion, in nats per token, never smoothed",
                ),
                MetricSpec::new(
                    loss::COMPLETION_LOGP,
                    Reduction::MEAN,
                    "Log-probability of a whole completion given its prompt, in nats, mean over the rows",
                ),
            ],
            expectations: vec![Expectation {
                quantity: loss::COMPLETION.into(),
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

impl Objective for SupervisedFineTuning {
    fn requirements(&self) -> Result<Requirements> {
        Ok(self.config.requirements())
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        loss::loss(&self.config, batch)
    }
}

export_objective!("sft", SupervisedFineTuning);
