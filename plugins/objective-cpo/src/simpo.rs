//! Simple preference optimisation (Meng et al. 2024, arXiv 2405.14734, equation 6). With
//! `m = beta (mean(c) - mean(r)) - gamma`:
//!
//! ```text
//! preference = -(1 - eps) log sigmoid(m) - eps log sigmoid(-m)          eps = label_smoothing
//! ```
//!
//! `gamma` is the target margin in the unit of the reward, `beta mean(y)`. The paper and TRL (`simpo_gamma`) give it
//! so; TRL computes `beta (margin - gamma / beta)`, which is the same. The authors' code gives `gamma_beta_ratio`,
//! which is `gamma / beta`.

use crate::pairs::{self, Pairs, Sides};
use plugin_api::prelude::*;

options! {
    /// Options of SimPO.
    pub struct Config {
        /// Scale of the reward, above 0. Rewards are means over tokens, so that it is larger than in losses that sum:
        /// 2 to 10.
        beta: f64 = 2.0, from 0.0;
        /// The amount by which the reward of the chosen answer should exceed that of the rejected one; for a
        /// `gamma_beta_ratio` of the authors' code give beta times that ratio.
        gamma: f64 = 1.0, from 0.0;
        /// Share of pairs whose sides are assumed to be exchanged.
        label_smoothing: f64 = 0.0, in 0.0..=0.5;
        /// Weight of the negative log-likelihood of the chosen answers (TRL's `cpo_alpha`); 0 leaves it out.
        sft_weight: f64 = 0.0, from 0.0;
        /// What that likelihood is divided by: `token`, the supervised tokens of the chosen answers (TRL); or
        /// `answer`, their number.
        sft_per: String = "token".into(), of pairs::SFT_PER;
    }
}

/// SimPO.
pub struct SimPo(Config);

impl ObjectivePlugin for SimPo {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "SimPO: prefers the chosen answer by its mean log-probability per token; no reference".into(),
            formula: "-(1 - eps) log s(m) - eps log s(-m), m = beta (p(chosen) - p(rejected)) - gamma, p the mean of an answer's \
                      token log-probabilities, s = sigmoid, eps = label_smoothing; gamma as in the paper and TRL, beta times the \
                      gamma_beta_ratio of the authors' code"
                .into(),
            paper: "Meng et al. 2024, arXiv 2405.14734, equation 6".into(),
            data: DataKind::PREFERENCE,
            terms: pairs::terms(),
            metrics: pairs::metrics("beta times the mean of its token log-probabilities"),
            expectations: pairs::expectations(),
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        let unused = pairs::unused_sft_per(options.sft_weight, &options.sft_per);
        pairs::refuse(pairs::positive_beta(options.beta).into_iter().chain(unused))?;
        Ok(Self(options))
    }
}

impl Objective for SimPo {
    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        pairs::weigh(batch, &self.0.sft_per)
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let Config { beta, gamma, label_smoothing: eps, sft_weight, .. } = self.0;
        let tape = batch.tape()?;
        let pairs = Pairs::of(batch, &tape)?;
        let Sides { chosen, rejected } = pairs.means();
        let rewards = Sides { chosen: beta * chosen, rejected: beta * rejected };
        let margin = rewards.margin() - gamma;
        let preference = -((1.0 - eps) * margin.log_sigmoid() + eps * (-margin).log_sigmoid());
        pairs.loss(preference, sft_weight, rewards)
    }
}
