//! A target length, whatever the content: for trying out a policy-gradient run, and against rambling in addition to another
//! reward.
//!
//! ```text
//! score = -|n - target| / max(target, 1)
//! ```
//!
//! n is the completion's length in `unit`. 0 is the best score; an empty completion scores -1 for a target above 0, and so does
//! one of twice the target. Longer ones score less, without a lower bound.

use plugin_api::prelude::*;

options! {
    /// Options of the length reward.
    pub struct Config {
        /// The length that scores best.
        target: i64 = 20, from 0;
        /// What is counted: characters of Unicode, or words between white space.
        unit: String = "words".to_owned(), of ["words", "characters"];
    }
}

/// The reward for a length close to the target.
pub struct Length(Config);

impl RewardPlugin for Length {
    type Options = Config;

    fn manifest() -> RewardManifest {
        RewardManifest {
            summary: "How close the completion's length is to a target, at most 0".into(),
            ..Default::default()
        }
    }

    fn create(config: Config) -> Result<Self> {
        Ok(Length(config))
    }
}

impl Reward for Length {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        let target = self.0.target as f64;
        let far = |sample: &Sample| (self.length(&sample.completion) as f64 - target).abs() / target.max(1.0);
        // 0 and not -0, which some JSON readers treat as another number.
        Ok(samples.iter().map(|sample| 0.0 - far(sample)).collect())
    }
}

impl Length {
    fn length(&self, text: &str) -> usize {
        if self.0.unit == "words" { text.split_whitespace().count() } else { text.chars().count() }
    }
}

export_reward!("length", Length);
