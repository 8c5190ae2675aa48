//! Knowledge distillation. At each supervised token, with the policy's distribution p and the teacher's q over the vocabulary,
//! both at temperature T, the term `divergence` is the generalised Jensen-Shannon divergence of weight w = `beta`:
//!
//! ```text
//! w = 0          KL(q || p)                          forward: the policy covers what the teacher may say
//! w = 1          KL(p || q)                          reverse: the policy says only what the teacher may say
//! otherwise      w KL(q || m) + (1 - w) KL(p || m)   m = w q + (1 - w) p
//! ```
//!
//! (Agarwal et al. 2024, generalised knowledge distillation, arXiv 2306.13649, equations 1 and 2; forward at
//! temperature T: Hinton et al. 2015, arXiv 1503.02531, section 2, here without its factor T^2.) As w approaches 0 or 1 the
//! mixture form approaches 0, so that at the ends the two divergences themselves stand, as in TRL.
//!
//! With `top_k` = K > 0 the vocabulary is divided into K + 1 parts: the teacher's K most probable ids at that token, and all others
//! together. With the log-probabilities `a[k]` of the teacher and `b[k]` of the policy, k = 0..K (the last one is `tail`),
//!
//! ```text
//! forward = sum_k exp(a[k]) (a[k] - b[k])        reverse = sum_k exp(b[k]) (b[k] - a[k])
//! ```
//!
//! and the mixture form in the same way. Joining parts never makes a divergence larger: the result is a lower bound of the whole one.
//!
//! With `nll` > 0 the term `nll` adds the negative log-likelihood of the tokens, at temperature 1 (`distill`) or at that of the sampling
//! (`on-policy-distill`). All arrays are `[N]` tokens, or
//! `[N, K]`, aligned to the target; in nats. Both terms are sums over supervised tokens, and the host divides by their number in the
//! optimizer window. Other tokens add nothing, and their cotangents are exactly 0.

use crate::settings::Settings;
use plugin_api::prelude::*;

/// The term of the teacher's distribution.
pub const DIVERGENCE: &str = "divergence";
/// The term of the tokens themselves.
pub const NLL: &str = "nll";
/// The share of the teacher's probability that its candidates have.
pub const COVERED: &str = "covered";

/// Terms, cotangents and metrics of a micro-batch.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing; [`Code::SHAPE`] for lengths that disagree.
pub fn loss(settings: &Settings, batch: &Batch<'_>) -> Result<Loss> {
    let (tape, mask) = (batch.tape()?, Mask::from(batch.mask()?));
    let per_token = match settings.top_k {
        0 => batch.var(&tape, "teacher.kl")?,
        _ => over_candidates(settings.beta, batch, &tape)?,
    };
    let mut loss = Loss::new().term(&tape, DIVERGENCE, 1.0, per_token.masked_sum(&mask))?;
    if settings.nll > 0.0 {
        let nll = -batch.var(&tape, "logp")?.masked_sum(&mask);
        loss = loss.term(&tape, NLL, settings.nll, nll)?;
    }
    if settings.top_k > 0 {
        let covered = batch.var(&tape, "teacher.candidates")?.exp().sum_last().masked_sum(&mask).scalar()?;
        loss = loss.metric(COVERED, covered, mask.count() as f64);
    }
    Ok(loss)
}

/// `[N]`: the divergence between distributions over the teacher's candidates and the rest.
fn over_candidates<'t>(weight: f64, batch: &Batch<'_>, tape: &'t Tape) -> Result<Var<'t>> {
    let part = |name| batch.var(tape, name);
    let ids = divergence(weight, part("teacher.candidates")?, part("candidates")?).sum_last();
    Ok(ids + divergence(weight, part("teacher.tail")?, part("tail")?))
}

/// What one part of the vocabulary adds, from its log-probabilities by the teacher and by the policy.
fn divergence<'t>(weight: f64, teacher: Var<'t>, policy: Var<'t>) -> Var<'t> {
    let (q, p) = (teacher.exp(), policy.exp());
    if weight == 0.0 {
        return q * (teacher - policy);
    }
    if weight == 1.0 {
        return p * (policy - teacher);
    }
    // log(w q + (1 - w) p), without an exponential of a positive number.
    let (of_teacher, of_policy) = (teacher + weight.ln(), policy + (1.0 - weight).ln());
    let mixture = of_teacher + (of_policy - of_teacher).softplus();
    weight * q * (teacher - mixture) + (1.0 - weight) * p * (policy - mixture)
}
