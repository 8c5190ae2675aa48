//! The squared distance of each log-probability from the mean of the window: `1/2 (logp - b)^2 - logp` per supervised token,
//! where b is the mean `logp` of the window, without gradient. With `coupled` the host computes the same loss in one call for the
//! window.

use plugin_api::{groups::Moments, prelude::*};

options! {
    /// Options of the baseline.
    pub struct Config {
        /// Ask for the whole window in one call of the loss, which it does not need.
        coupled: bool = false;
        /// Require the statistics of the window for `prepare`, which reads them.
        window: bool = true;
    }
}

/// The objective; it has no state.
pub struct Baseline(Config);

impl ObjectivePlugin for Baseline {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            metrics: vec![MetricSpec::new("baseline", Reduction::MEAN, "The mean log-probability of the window")],
            ..crate::description::manifest(
                "Log-probabilities near the window's mean",
                "1/2 (logp - mean logp of the window)^2 - logp",
                DataKind::TEXT,
                Normaliser::SUPERVISED_TOKENS,
            )
        }
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Objective for Baseline {
    fn requirements(&self) -> Result<Requirements> {
        let Config { coupled, window } = self.0;
        Ok(Requirements { coupled, window_statistics: window, ..Requirements::default() })
    }

    fn prepare(&mut self, window: &Batch<'_>) -> Result<Batch<'static>> {
        let mean = Moments::of(window.get("logp")?, window.mask()?).mean;
        Ok(Batch::new().with("baseline", Scope::BATCH, vec![mean]))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask) = (batch.tape()?, batch.mask()?);
        let (logp, baseline) = (batch.var(&tape, "logp")?, batch.get("baseline")?.iter().sum::<f64>());
        let (from, tokens) = (logp - baseline, mask.iter().sum::<f64>());
        let loss = (0.5 * from * from - logp).masked_sum(mask);
        Ok(Loss::new().term(&tape, "nll", 1.0, loss)?.metric("baseline", baseline * tokens, tokens))
    }
}
