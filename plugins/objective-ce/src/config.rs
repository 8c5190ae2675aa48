//! Options of cross-entropy, and the statistics they require.

use plugin_api::prelude::*;

options! {
    /// Options of cross-entropy.
    pub struct Config {
        /// Share of the target that is spread evenly over the vocabulary; at least 0, less than 1.
        label_smoothing: f64 = 0.0, in 0.0..=1.0;
        /// Weight of the squared log-partition function, which keeps logits from drifting; PaLM took 1e-4, 0 leaves it out.
        z_loss: f64 = 0.0, from 0.0;
    }
}

impl Config {
    /// Refuses what the declared ranges cannot say.
    ///
    /// # Errors
    /// [`Code::OPTION`] naming the key.
    pub fn check(&self) -> Result<()> {
        if self.label_smoothing < 1.0 {
            return Ok(());
        }
        let why = "option `label_smoothing`: 1 leaves nothing of the target; it must be less";
        Err(Error::new(Code::OPTION, why))
    }

    /// Whether the smoothed target needs more than the target's own log-probability.
    pub fn smooths(&self) -> bool {
        self.label_smoothing > 0.0
    }

    /// Whether there is a z-loss.
    pub fn has_z_loss(&self) -> bool {
        self.z_loss > 0.0
    }

    /// Requests no statistic that the options leave unused: each costs the backend a pass or memory. Only the z-loss, a square, is
    /// not linear.
    pub fn requirements(&self) -> Requirements {
        let wanted = [
            (Statistic::LOGP, true),
            (Statistic::LSE, self.smooths() || self.has_z_loss()),
            (Statistic::MEAN_LOGIT, self.smooths()),
        ];
        Requirements {
            statistics: wanted.iter().filter(|(_, needed)| *needed).map(|(name, _)| name.to_string()).collect(),
            linear: !self.has_z_loss(),
            ..Default::default()
        }
    }
}
