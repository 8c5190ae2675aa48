//! Contrastive preference optimisation (Xu et al. 2024, arXiv 2401.08417, equations 3 to 5). By the option `loss`:
//!
//! ```text
//! sigmoid (sum)     -(1 - eps) log sigmoid(beta m) - eps log sigmoid(-beta m)      m = sum(c) - sum(r),  eps = label_smoothing
//! hinge   (sum)     max(0, 1 - beta m)                                             as in SLiC
//! ipo     (mean)    (m - 1 / (2 beta))^2                                           m = mean(c) - mean(r)
//! ```
//!
//! The paper's likelihood term is a mean over answers of their summed log-probabilities (`sft_per = "answer"`); the
//! authors' code and TRL divide by the tokens of the chosen answers (`"token"`, the default).

use crate::pairs::{self, Pairs, Sides};
use plugin_api::prelude::*;

options! {
    /// Options of CPO.
    pub struct Config {
        /// Which loss: `sigmoid` (the paper's) and `hinge` sum an answer's token log-probabilities, `ipo` averages
        /// them.
        loss: String = "sigmoid".into(), of ["sigmoid", "hinge", "ipo"];
        /// Scale of the reward, above 0. Not comparable between losses that sum and `ipo`, which averages.
        beta: f64 = 0.1, from 0.0;
        /// Share of pairs whose sides are assumed to be exchanged; only with `sigmoid`.
        label_smoothing: f64 = 0.0, in 0.0..=0.5;
        /// Weight of the negative log-likelihood of the chosen answers (TRL's `cpo_alpha`); 0 leaves it out.
        sft_weight: f64 = 1.0, from 0.0;
        /// What that likelihood is divided by: `token`, the supervised tokens of the chosen answers (the authors'
        /// code, TRL); or `answer`, their number (the paper), so that long answers have a greater weight.
        sft_per: String = "token".into(), of pairs::SFT_PER;
    }
}

/// CPO.
pub struct Cpo(Config);

impl ObjectivePlugin for Cpo {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "CPO: prefers the chosen answer and keeps it likely, without a reference".into(),
            formula: "with the sum of an answer's token log-probabilities as log pi, m = log pi(chosen) - log pi(rejected), s = \
                      sigmoid, eps = label_smoothing; by `loss`:\n  sigmoid (sum): -(1 - eps) log s(beta m) - eps log s(-beta m)\n  \
                      hinge (sum): max(0, 1 - beta m)\n  ipo (mean): (m - 1 / (2 beta))^2"
                .into(),
            paper: "Xu et al. 2024, arXiv 2401.08417, equations 3 to 5; hinge: Zhao et al. 2023 (SLiC), arXiv 2305.10425; ipo: Azar \
                    et al. 2023, arXiv 2310.12036, averaged as in TRL"
                .into(),
            data: DataKind::PREFERENCE,
            terms: pairs::terms(),
            metrics: pairs::metrics("beta times the sum of its token log-probabilities (the mean in `ipo`)"),
            expectations: pairs::expectations(),
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        let Config { loss, beta, label_smoothing, sft_weight, sft_per } = &options;
        let ignored = (*label_smoothing > 0.0 && loss != "sigmoid")
            .then(|| format!("option `label_smoothing`: `loss = \"{loss}\"` does not use it; leave it at 0"));
        let unused = pairs::unused_sft_per(*sft_weight, sft_per);
        pairs::refuse(pairs::positive_beta(*beta).into_iter().chain(ignored).chain(unused))?;
        Ok(Self(options))
    }
}

impl Objective for Cpo {
    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        pairs::weigh(batch, &self.0.sft_per)
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let Config { beta, label_smoothing: eps, sft_weight, ref loss, .. } = self.0;
        let tape = batch.tape()?;
        let pairs = Pairs::of(batch, &tape)?;
        let answers = if loss == "ipo" { pairs.means() } else { pairs.sums() };
        let rewards = Sides { chosen: beta * answers.chosen, rejected: beta * answers.rejected };
        let margin = rewards.margin();
        let preference = match loss.as_str() {
            "hinge" => (1.0 - margin).relu(),
            "ipo" => (answers.margin() - 1.0 / (2.0 * beta)).square(),
            _ => -((1.0 - eps) * margin.log_sigmoid() + eps * (-margin).log_sigmoid()),
        };
        pairs.loss(preference, sft_weight, rewards)
    }
}
