//! Simple preference optimisation (Meng et al. 2024, arXiv 2405.14734, equation 6): pairs of answers, no reference.
//!
//! ```text
//! p(y)  = mean over y's supervised tokens of logp                             in nats per token
//! loss  = -log sigmoid(beta (p(chosen) - p(rejected)) - gamma)                per pair
//! ```
//!
//! `gamma` is the target margin itself; TRL calls it `simpo_gamma` and applies `beta (m - simpo_gamma / beta)`, which is the same.
//! `logp` and `mask` are `[N]`, `group` and `side` (1 chosen, 0 rejected) are `[S]`. A masked token adds nothing and its cotangent
//! is exactly 0.

use plugin_api::{batch::names, prelude::*};

options! {
    /// Options of SimPO.
    pub struct Config {
        /// How sharply the margin counts.
        beta: f64 = 2.0, from 0.0;
        /// The margin that is wanted, in units of beta times nats per token.
        gamma: f64 = 1.0, from 0.0;
    }
}

/// SimPO; it has no state.
pub struct SimPo(Config);

impl ObjectivePlugin for SimPo {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            summary: "SimPO: prefers the chosen answer by its mean log-probability; no reference".into(),
            formula: "-log sigmoid(beta (p(chosen) - p(rejected)) - gamma), p the mean of the token log-probabilities"
                .into(),
            paper: "Meng et al. 2024, arXiv 2405.14734, equation 6".into(),
            data: DataKind::PREFERENCE,
            terms: vec![TermSpec::new("preference", Normaliser::PAIRS, "The loss per pair")],
            metrics: vec![
                mean("rewards/margin", "beta times the chosen less the rejected answer's mean log-probability"),
                mean("rewards/accuracy", "Share of pairs whose chosen answer is the more probable per token"),
            ],
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Objective for SimPo {
    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let (group, side) = (batch.get(names::GROUP)?, batch.get(names::SIDE)?);
        let answers = batch.var(&tape, "logp")?.seq_mean(batch.mask()?);
        let margin = self.0.beta * (answers.chosen(group, side) - answers.rejected(group, side));
        let pairs = margin.to_vec()?.len() as f64;
        Ok(Loss::new()
            .term(&tape, "preference", 1.0, (-(margin - self.0.gamma).log_sigmoid()).sum())?
            .metric("rewards/margin", margin.sum().scalar()?, pairs)
            .metric("rewards/accuracy", margin.gt(0.0).count() as f64, pairs))
    }
}

export_objective!("simpo", SimPo);
