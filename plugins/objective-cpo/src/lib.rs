//! Preference losses without a reference model, as two objectives: `simpo` and `cpo`. A pair has one prompt, a chosen
//! answer c and a rejected answer r. For an answer y:
//!
//! ```text
//! sum(y)     = sum over y's supervised tokens of logp              log-probability, in nats
//! mean(y)    = sum(y) / number of y's supervised tokens            in nats per token
//!
//! simpo      = -log sigmoid(beta (mean(c) - mean(r)) - gamma)                     Meng et al. 2024, equation 6
//! cpo        = -log sigmoid(beta (sum(c) - sum(r)))                               Xu et al. 2024, equation 3; `hinge`, `ipo`
//! sft        = -sum over the chosen answers' supervised tokens of logp
//! total      = the loss per pair + sft_weight * sft per chosen token, or per chosen answer
//! ```
//!
//! `logp` and `mask` are `[N]` tokens, aligned to the target; `group` and `side` are `[S]` sequences: the pair's
//! number, and 1 for chosen, 0 for rejected. A masked token adds nothing and its cotangent is exactly 0. The host
//! divides the loss by the pairs and `sft` by what [`pairs::weigh`] counts, each of the whole optimizer window.
//!
//! CPO is DPO with a reference that gives every answer the same probability, and with the likelihood of the chosen
//! answers in place of the reference: `sft_weight` is 1 there, and 0 in SimPO, which normalises by length instead.
//! SimPO with a `sft_weight` is CPO-SimPO. The maths of each is in [`simpo`] and [`cpo`], what both share in
//! [`pairs`].

pub mod cpo;
pub mod pairs;
pub mod simpo;

use plugin_api::export_objective;

export_objective!("simpo", simpo::SimPo);
export_objective!("cpo", cpo::Cpo);
