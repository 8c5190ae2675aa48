//! Options of online DPO.

use crate::loss::LOSSES;
use plugin_api::prelude::*;

options! {
    /// Options of online DPO.
    pub struct Config {
        /// The loss of a pair from the margin m of its log-ratios: `sigmoid` is -log sigmoid(beta m) (DPO), of summed
        /// log-probabilities; `ipo` is (m - 1 / (2 beta))^2, of means over tokens, as the objective `dpo` has them.
        loss: String = "sigmoid".into(), of LOSSES.iter().map(|row| row.name);
        /// Scale of the implicit reward, above 0: larger keeps the policy nearer to the reference.
        beta: f64 = 0.1, from 0.0;
    }
}
