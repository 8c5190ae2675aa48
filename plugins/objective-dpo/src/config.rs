//! Options of direct preference optimisation, as declared.

use crate::{divergence::DIVERGENCES, losses::LOSSES};
use plugin_api::prelude::*;

options! {
    /// Options of direct preference optimisation.
    pub struct Config {
        /// Which loss; the formula lists them, each with its paper and with `sum` or `mean` for what it makes of a
        /// sequence's log-probabilities.
        loss: String = "sigmoid".into(), of LOSSES.iter().map(|loss| loss.name);
        /// Scale of the implicit reward, above 0: larger keeps the policy nearer to the reference. Not comparable between losses
        /// that sum log-probabilities and losses that average them.
        beta: f64 = 0.1, from 0.0;
        /// Share of pairs whose sides are assumed to be exchanged, `eps` in the formulas: cDPO in `sigmoid`, the unbiased estimate in
        /// `robust` (below 0.5), epsilon in `exo` (above 0); refused by losses whose formula has none.
        label_smoothing: f64 = 0.0, in 0.0..=0.5;
        /// Leave the reference out, as if it gave every answer the same probability; no reference model is needed then.
        reference_free: bool = false;
        /// The f-divergence from the reference that the reward is derived from (f-DPO); only with losses of the margin
        /// of summed log-probabilities.
        divergence: String = "reverse-kl".into(), of DIVERGENCES.iter().map(|row| row.name);
        /// The alpha of `divergence = "alpha"`, above 0; 1 is the forward KL.
        divergence_alpha: f64 = 1.0, from 0.0;
        /// Weight of an answer's tokens beyond the length of the pair's shorter answer (LD-DPO); 1 counts them fully. Only with
        /// losses that sum.
        ld_alpha: f64 = 1.0, in 0.0..=1.0;
        /// Weight of the mean negative log-likelihood of the chosen answers' tokens (RPO's alpha); 0 leaves it out.
        sft_weight: f64 = 0.0, from 0.0;
        /// Temperature of the mixing weight in `discopop`, above 0.
        discopop_tau: f64 = 0.05, from 0.0;
    }
}
