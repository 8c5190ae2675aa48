//! Cross-entropy. With logits `x[v]` over a vocabulary of V tokens and target `y`, per token
//!
//! ```text
//! lse           = log sum_v exp x[v]                          log-partition function, log Z
//! logp          = x[y] - lse                                  log-probability of the target
//! lse - mean(x) = (1 / V) sum_v -log p[v]                     cross-entropy of the uniform distribution
//!
//! cross_entropy = (1 - eps) (-logp) + eps (lse - mean(x))     eps = label_smoothing
//! z_loss        = lse^2
//! total         = cross_entropy + z_loss_option * z_loss
//! ```
//!
//! each summed over the N tokens of the micro-batch whose mask is 1 and divided, by the host, by the supervised tokens of
//! the optimizer window. All in nats. Statistics and mask have shape `[N]`, aligned to the target; a masked token adds nothing
//! and its cotangents are exactly 0, whatever stands there.
//!
//! The smoothed target gives `1 - eps + eps / V` to `y` and `eps / V` to every other token: PyTorch's and Szegedy's convention,
//! not the one that keeps `1 - eps` for `y` and divides `eps` among the others. It is written with the mean logit, so that the
//! log-probabilities of the whole vocabulary are not needed. The derivatives are
//!
//! ```text
//! d cross_entropy / d logp      = -(1 - eps)
//! d cross_entropy / d lse       =  eps
//! d cross_entropy / d mean(x)   = -eps
//! d z_loss        / d lse       =  2 lse
//! ```
//!
//! The first three are constants: without a z-loss the head needs no statistics before its backward pass. They are
//! written by hand because a batch may hold 64 thousand tokens; a test compares them with the tape.

use crate::config::Config;
use plugin_api::{
    batch::names,
    objective::{MetricPart, Term},
    prelude::*,
};

/// The term with the smoothed target.
pub const CROSS_ENTROPY: &str = "cross_entropy";
/// The term of the squared log-partition function.
pub const Z_LOSS: &str = "z_loss";
/// The metric without smoothing.
pub const NLL: &str = "nll";
/// The metric of the log-partition function.
pub const LOG_Z: &str = "log_z";

/// Terms, cotangents and metrics of a micro-batch.
///
/// # Errors
/// [`Code::ARRAY`] for a statistic that is missing or of another length than the tokens, and for a mask that is not 0 or 1.
pub fn loss(config: &Config, batch: &Batch<'_>) -> Result<Loss> {
    let supervised = Supervised::of(batch)?;
    let nll = 0.0 - supervised.sum(supervised.statistic(batch, "logp")?);
    let mut loss = Loss { terms: vec![cross_entropy(config, batch, &supervised, nll)?], metrics: Vec::new() };
    let mut metric = |name: &str, value| {
        loss.metrics.push(MetricPart { name: name.into(), value, weight: supervised.count });
    };
    metric(NLL, nll);
    if config.has_z_loss() {
        let lse = supervised.statistic(batch, "lse")?;
        metric(LOG_Z, supervised.sum(lse));
        loss.terms.push(z_loss(config, lse, &supervised));
    }
    Ok(loss)
}

fn cross_entropy(config: &Config, batch: &Batch<'_>, supervised: &Supervised<'_>, nll: f64) -> Result<Term> {
    let eps = config.label_smoothing;
    let mut sum = (1.0 - eps) * nll;
    let mut cotangents = vec![("logp".to_owned(), supervised.constant(-(1.0 - eps)))];
    if config.smooths() {
        let (lse, mean_logit) = (supervised.statistic(batch, "lse")?, supervised.statistic(batch, "mean_logit")?);
        sum += eps * (supervised.sum(lse) - supervised.sum(mean_logit));
        cotangents.push(("lse".to_owned(), supervised.constant(eps)));
        cotangents.push(("mean_logit".to_owned(), supervised.constant(-eps)));
    }
    Ok(Term { name: CROSS_ENTROPY.into(), coefficient: 1.0, sum, cotangents })
}

fn z_loss(config: &Config, lse: &[f64], supervised: &Supervised<'_>) -> Term {
    let sum = supervised.select(lse).map(|z| z * z).sum::<f64>() + 0.0;
    let cotangents = vec![("lse".to_owned(), supervised.map(lse, |z| 2.0 * z))];
    Term { name: Z_LOSS.into(), coefficient: config.z_loss, sum, cotangents }
}

/// The supervised tokens. They are selected, not multiplied by the mask, so that a NaN elsewhere has no effect.
struct Supervised<'a> {
    mask: &'a [f64],
    count: f64,
}

impl<'a> Supervised<'a> {
    fn of(batch: &'a Batch<'_>) -> Result<Self> {
        let mask = of_length(batch, names::MASK, batch.tokens()?)?;
        if let Some(n) = mask.iter().position(|m| *m != 0.0 && *m != 1.0) {
            let why = format!("`{}`[{n}] is {}, neither 0 nor 1: a weight is not a mask", names::MASK, mask[n]);
            return Err(Error::new(Code::ARRAY, why));
        }
        let count = mask.iter().filter(|m| **m == 1.0).count() as f64;
        Ok(Self { mask, count })
    }

    /// A statistic, one value per token.
    fn statistic<'b>(&self, batch: &'b Batch<'_>, name: &str) -> Result<&'b [f64]> {
        of_length(batch, name, self.mask.len())
    }

    fn select<'v>(&self, values: &'v [f64]) -> impl Iterator<Item = f64> + use<'v, 'a> {
        self.mask.iter().zip(values).filter(|(m, _)| **m == 1.0).map(|(_, value)| *value)
    }

    /// Sums in index order. Adding 0 turns the -0 of an empty sum into 0.
    fn sum(&self, values: &[f64]) -> f64 {
        self.select(values).sum::<f64>() + 0.0
    }

    fn map(&self, values: &[f64], cotangent: impl Fn(f64) -> f64) -> Vec<f64> {
        let one = |(m, value): (&f64, &f64)| if *m == 1.0 { cotangent(*value) } else { 0.0 };
        self.mask.iter().zip(values).map(one).collect()
    }

    fn constant(&self, cotangent: f64) -> Vec<f64> {
        self.mask.iter().map(|m| if *m == 1.0 { cotangent } else { 0.0 }).collect()
    }
}

fn of_length<'b>(batch: &'b Batch<'_>, name: &str, tokens: usize) -> Result<&'b [f64]> {
    let values = batch.get(name)?;
    if values.len() == tokens {
        return Ok(values);
    }
    let why = format!("array `{name}` holds {} values for {tokens} tokens", values.len());
    Err(Error::new(Code::ARRAY, why))
}
