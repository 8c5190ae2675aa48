//! Online direct preference optimisation: the policy answers prompts, rewards rank the answers, and it learns from the
//! best and the worst answer to each prompt, near a frozen reference.
//!
//! The loss is in [`loss`], the choice of pairs in [`pairs`], the options in [`config`]; this file has the plugin's
//! description.

pub mod config;
pub mod loss;
pub mod pairs;

use config::Config;
use loss::{LOSSES, PairLoss, metric};
use plugin_api::prelude::*;

/// Online DPO; it has no state.
pub struct OnlineDpo {
    config: Config,
    loss: &'static PairLoss,
}

impl ObjectivePlugin for OnlineDpo {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Online DPO: prefers the best of the policy's answers to a prompt to the worst, near a reference".into(),
            formula: "x(y) = sum over y's tokens of logp - reference.logp, m = x(best) - x(worst): sigmoid: -log sigmoid(beta m); \
                      ipo: (m - 1 / (2 beta))^2 with means over tokens"
                .into(),
            paper: "Guo et al. 2024 (OAIF), arXiv 2402.04792; Rafailov et al. 2023 (DPO), arXiv 2305.18290, equation 7; Azar et \
                    al. 2023 (IPO), arXiv 2310.12036"
                .into(),
            data: DataKind::PROMPT,
            terms: vec![TermSpec::new(
                loss::PREFERENCE,
                Normaliser::GROUPS,
                "The loss per pair: with `loss = \"sigmoid\"` ln 2 while the policy equals the reference",
            )],
            metrics: metrics(),
            // None holds under both losses, and the host does not consider options here: see the tests of gotcha 16.
            expectations: Vec::new(),
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        let loss = LOSSES.iter().find(|row| row.name == options.loss);
        let Some(loss) = loss else {
            return Err(Error::new(Code::OPTION, format!("option `loss`: `{}` is unknown", options.loss)));
        };
        if options.beta <= 0.0 {
            return Err(Error::new(Code::OPTION, format!("option `beta`: {} is not above 0", options.beta)));
        }
        Ok(Self { config: options, loss })
    }
}

fn metrics() -> Vec<MetricSpec> {
    let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
    vec![
        mean(metric::CHOSEN, "Implicit reward of the best answer, beta times its summed log-ratio"),
        mean(metric::REJECTED, "Implicit reward of the worst answer"),
        mean(metric::MARGIN, "Implicit reward of the best less that of the worst answer"),
        mean(
            metric::ACCURACY,
            "Share of pairs whose best answer has the greater implicit reward; a tie does not count",
        ),
        mean(
            metric::LOGPS_CHOSEN,
            "Log-probability of the best answer, summed over its tokens, in nats; it may fall while the margin grows",
        ),
        mean(metric::LOGPS_REJECTED, "Log-probability of the worst answer, summed over its tokens, in nats"),
        mean(metric::BEST, "Reward of the best answer to a prompt that gives a pair"),
        mean(metric::WORST, "Reward of the worst answer to such a prompt"),
        mean(metric::REWARD, "Reward of all answers of the rollout"),
        MetricSpec {
            healthy: Some((0.1, 1.0)),
            ..mean(
                metric::PAIRS,
                "Share of the rollout's prompts that give a pair; a prompt whose answers all have the same reward gives none",
            )
        },
        mean(metric::KL, "KL to the reference in nats per answer, by k1 over all answers of the rollout; 0 at first"),
        mean(metric::LENGTH, "Supervised tokens per answer of a pair, the end-of-text token included"),
        mean(metric::ENDED, "Share of the pairs' answers that ended by themselves"),
    ]
}

impl Objective for OnlineDpo {
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements { samples: 2, requests: false, ..Requirements::reading(["logp", "reference.logp"]) })
    }

    fn prepare(&mut self, rollouts: &Batch<'_>) -> Result<Batch<'static>> {
        pairs::prepare(rollouts)
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        loss::loss(&self.config, self.loss, batch)
    }
}

export_objective!("online-dpo", OnlineDpo);
