//! Options of instruction tuning, and the statistics they require.

use plugin_api::prelude::*;

options! {
    /// Options of instruction tuning.
    pub struct Config {
        /// Share of the target that is spread evenly over the vocabulary; at least 0, less than 1.
        label_smoothing: f64 = 0.0, in 0.0..=1.0;
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

    /// Requests no statistic that the options leave unused: each costs the backend a pass or memory.
    pub fn requirements(&self) -> Requirements {
        let smoothing: &[Statistic] = if self.smooths() { &[Statistic::LSE, Statistic::MEAN_LOGIT] } else { &[] };
        Requirements {
            statistics: [Statistic::LOGP].iter().chain(smoothing).map(|name| name.to_string()).collect(),
            linear: true,
            ..Default::default()
        }
    }
}
