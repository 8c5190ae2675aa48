//! Distillation: the policy learns a teacher's distribution at each token. `distill` reads rows with answers, written by anybody;
//! `on-policy-distill` reads prompts, and the policy answers them itself, so that it learns at the tokens that it would say (Agarwal
//! et al. 2024, arXiv 2306.13649). The maths is in [`loss`](mod@loss).

pub mod loss;
pub mod settings;

use loss::{COVERED, DIVERGENCE, NLL};
use plugin_api::prelude::*;
use settings::{Config, Settings};

/// Distillation on given answers.
pub struct Distillation(Settings);

/// Distillation on the policy's own answers.
pub struct OnPolicyDistillation(Settings);

fn manifest(data: DataKind, summary: &str) -> ObjectiveManifest {
    let per_token = |name, meaning| TermSpec::new(name, Normaliser::SUPERVISED_TOKENS, meaning);
    ObjectiveManifest {
        summary: summary.into(),
        formula:
            "sum over supervised tokens of the generalised Jensen-Shannon divergence between teacher q and policy p at \
                  `temperature` (`beta` 0: KL(q || p); 1: KL(p || q)), over the vocabulary or over the teacher's `top_k` ids and \
                  all others as one; plus the coefficient `nll` times the sum of -logp"
                .into(),
        paper:
            "Agarwal et al. 2024, arXiv 2306.13649, equations 1 and 2; Hinton et al. 2015, arXiv 1503.02531, section 2"
                .into(),
        data,
        terms: vec![
            per_token(DIVERGENCE, "Divergence of the policy from the teacher, in nats per token"),
            per_token(NLL, "Negative log-likelihood of the tokens, in nats per token; only with `nll` above 0"),
        ],
        metrics: vec![MetricSpec::new(
            COVERED,
            Reduction::MEAN,
            "Probability that the teacher gives to its `top_k` ids together, mean over tokens; only with `top_k` above 0",
        )],
        ..Default::default()
    }
}

impl ObjectivePlugin for Distillation {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        manifest(DataKind::PROMPT_COMPLETION, "Distillation: a teacher's distribution at the tokens of given answers")
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self(Settings::new(options)?))
    }
}

impl Objective for Distillation {
    fn requirements(&self) -> Result<Requirements> {
        Ok(self.0.requirements())
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        loss::loss(&self.0, batch)
    }
}

impl ObjectivePlugin for OnPolicyDistillation {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let summary = "On-policy distillation: a teacher's distribution at the tokens of the policy's own answers";
        manifest(DataKind::PROMPT, summary)
    }

    fn create(options: Config) -> Result<Self> {
        if options.top_k > 0 && options.temperature != 1.0 {
            let why = "options `top_k` and `temperature`: candidates are compared at the temperature of the sampling; set \
                       rollout.temperature, or use top_k = 0";
            return Err(Error::new(Code::OPTION, why));
        }
        Ok(Self(Settings::new(options)?))
    }
}

impl Objective for OnPolicyDistillation {
    /// Each token is compared by itself, so that the answers to a prompt need not stay together, and the teacher takes the place of
    /// rewards.
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements { whole_groups: false, rewards: false, requests: false, ..self.0.requirements() })
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        loss::loss(&self.0, batch)
    }
}

export_objective!("distill", Distillation);
export_objective!("on-policy-distill", OnPolicyDistillation);
