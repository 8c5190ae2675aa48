//! Cross-entropy of completions. With logits `x[v]` over a vocabulary of V tokens and target `y`, per token
//!
//! ```text
//! lse        = log sum_v exp x[v]                                   log-partition function
//! logp       = x[y] - lse                                           log-probability of the target
//! completion = (1 - eps) (-logp) + eps (lse - mean(x))              eps = label_smoothing
//! ```
//!
//! summed over the tokens of the micro-batch whose mask is 1: those of the completions, including the end-of-text token that
//! closes each of them. The host makes the mask from the rows; prompts have 0 there, add nothing, and their cotangents are exactly
//! 0, whatever their values are. The host divides by the completion tokens of the optimizer window, so every token has the same
//! weight and a long completion more than a short one (the convention of TRL and transformers). In nats; arrays have shape `[N]`,
//! aligned to the target.
//!
//! The smoothed target is PyTorch's: `1 - eps + eps / V` for `y`, `eps / V` for every other token. The derivatives are
//! constants, so the head needs no statistics before its backward pass:
//!
//! ```text
//! d completion / d logp = -(1 - eps)      d / d lse = eps      d / d mean(x) = -eps
//! ```

use crate::config::Config;
use plugin_api::{
    batch::names,
    objective::{MetricPart, Term},
    prelude::*,
};

/// The only term.
pub const COMPLETION: &str = "completion";
/// The metric per token, without smoothing.
pub const NLL: &str = "nll";
/// The metric per row.
pub const COMPLETION_LOGP: &str = "completion_logp";

/// Term, cotangents and metrics of a micro-batch.
///
/// # Errors
/// [`Code::ARRAY`] for a statistic that is missing or of another length than the tokens, and for a mask that is not 0 or 1.
pub fn loss(config: &Config, batch: &Batch<'_>) -> Result<Loss> {
    let (offsets, mask) = (batch.offsets()?, mask(batch)?);
    let logp = statistic(batch, "logp", mask.len())?;
    // Adding 0 turns the -0 of an empty sum into 0.
    let sum = |values: &[f64]| select(mask, values).sum::<f64>() + 0.0;
    let constant = |cotangent: f64| mask.iter().map(|m| if *m == 1.0 { cotangent } else { 0.0 }).collect::<Vec<_>>();

    let (eps, nll) = (config.label_smoothing, 0.0 - sum(logp));
    let mut term = Term {
        name: COMPLETION.into(),
        coefficient: 1.0,
        sum: (1.0 - eps) * nll,
        cotangents: vec![("logp".to_owned(), constant(eps - 1.0))],
    };
    if config.smooths() {
        for (name, weight) in [("lse", eps), ("mean_logit", -eps)] {
            term.sum += weight * sum(statistic(batch, name, mask.len())?);
            term.cotangents.push((name.to_owned(), constant(weight)));
        }
    }
    let metric = |name: &str, value, weight| MetricPart { name: name.into(), value, weight };
    let metrics = vec![
        metric(NLL, nll, mask.iter().sum()),
        // A row without supervised tokens has no completion here.
        metric(
            COMPLETION_LOGP,
            0.0 - nll,
            offsets.windows(2).filter(|o| mask[o[0]..o[1]].contains(&1.0)).count() as f64,
        ),
    ];
    Ok(Loss { terms: vec![term], metrics })
}

/// The values of supervised tokens. They are selected, not multiplied by the mask, so that a NaN elsewhere has no effect.
fn select<'a>(mask: &'a [f64], values: &'a [f64]) -> impl Iterator<Item = f64> {
    mask.iter().zip(values).filter(|(m, _)| **m == 1.0).map(|(_, value)| *value)
}

fn mask<'b>(batch: &'b Batch<'_>) -> Result<&'b [f64]> {
    let mask = statistic(batch, names::MASK, batch.tokens()?)?;
    match mask.iter().position(|m| *m != 0.0 && *m != 1.0) {
        None => Ok(mask),
        Some(n) => {
            let why = format!("`{}`[{n}] is {}, neither 0 nor 1: a weight is not a mask", names::MASK, mask[n]);
            Err(Error::new(Code::ARRAY, why))
        }
    }
}

fn statistic<'b>(batch: &'b Batch<'_>, name: &str, tokens: usize) -> Result<&'b [f64]> {
    let values = batch.get(name)?;
    if values.len() == tokens {
        return Ok(values);
    }
    Err(Error::new(Code::ARRAY, format!("array `{name}` holds {} values for {tokens} tokens", values.len())))
}
