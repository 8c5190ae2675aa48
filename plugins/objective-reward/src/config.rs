//! Options of reward ranking.

use plugin_api::prelude::*;

options! {
    /// Options of reward ranking.
    pub struct Config {
        /// Weight of the square of a pair's summed scores, which keeps scores around 0 (TRL's `center_rewards_coefficient`, where
        /// 0.01 is usual); 0 leaves it out.
        centering: f64 = 0.0, from 0.0;
    }
}

impl Config {
    /// Whether scores are pulled towards 0.
    pub fn centers(&self) -> bool {
        self.centering > 0.0
    }
}
