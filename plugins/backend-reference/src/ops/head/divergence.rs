//! The divergence between the distributions of two language models, and its backward for the first of them.

use super::{Gradients, Logits, log_sum_exp, logits, row};
use crate::{Reference, session::require};
use plugin_api::{
    Result,
    backend::ops::{HeadDivergence, HeadDivergenceBackward},
};

plugin_api::operations! {
    DivergenceOps for Reference:
    head_divergence HeadDivergence => divergence,
    head_divergence_backward HeadDivergenceBackward => backward,
}

/// The logits of the other model.
macro_rules! other {
    ($s:expr, $op:expr, $name:literal) => {
        Logits::read($s, $name, (&$op.x2, &$op.w2, &$op.bias2), [$op.temperature, $op.softcap2, $op.scale2])?
    };
}

/// The logarithms of p, of q and, where the weight is neither 0 nor 1, of the mixture m, for one id.
#[derive(Clone, Copy)]
struct Logs {
    p: f64,
    q: f64,
    m: f64,
}

/// `log(w q + (1 - w) p)`, without underflow.
fn mixture(weight: f64, p: f64, q: f64) -> f64 {
    let (a, b) = (weight.ln() + q, (-weight).ln_1p() + p);
    let (high, low) = (a.max(b), a.min(b));
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The logarithms at every id of a token with logits `z` and `z2`.
fn logs(weight: f64, (z, lse): (&[f64], f64), (z2, lse2): (&[f64], f64)) -> Vec<Logs> {
    let of = |(&z, &z2): (&f64, &f64)| {
        let (p, q) = (z - lse, z2 - lse2);
        Logs { p, q, m: if weight > 0.0 && weight < 1.0 { mixture(weight, p, q) } else { f64::NAN } }
    };
    z.iter().zip(z2).map(of).collect()
}

/// `sum exp(a) (a - b)`: a probability of 0 adds nothing.
fn kl(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    pairs.filter(|(a, _)| a.exp() != 0.0).map(|(a, b)| a.exp() * (a - b)).sum()
}

/// The divergence of a token; rounding may take a tiny one below 0.
fn of_token(weight: f64, logs: &[Logs]) -> f64 {
    let divergence = if weight == 0.0 {
        kl(logs.iter().map(|l| (l.q, l.p)))
    } else if weight == 1.0 {
        kl(logs.iter().map(|l| (l.p, l.q)))
    } else {
        let (q_m, p_m) = (kl(logs.iter().map(|l| (l.q, l.m))), kl(logs.iter().map(|l| (l.p, l.m))));
        weight * q_m + (1.0 - weight) * p_m
    };
    // NaN stays NaN.
    if divergence < 0.0 { 0.0 } else { divergence }
}

/// The derivative of a token's divergence by each `z`.
fn slopes(weight: f64, logs: &[Logs]) -> Vec<f64> {
    if weight == 0.0 {
        return logs.iter().map(|l| l.p.exp() - l.q.exp()).collect();
    }
    let by_p = |l: &Logs| if weight == 1.0 { l.p - l.q } else { (1.0 - weight) * (l.p - l.m) };
    let likely = |l: &&Logs| l.p.exp() != 0.0;
    let mean: f64 = logs.iter().filter(likely).map(|l| l.p.exp() * by_p(l)).sum();
    logs.iter().map(|l| if likely(&l) { l.p.exp() * (by_p(l) - mean) } else { 0.0 }).collect()
}

fn check(name: &str, weight: f64) -> Result<()> {
    require((0.0..=1.0).contains(&weight), name, || format!("weight {weight} is outside 0..=1"))
}

/// The divergence per token.
pub fn divergence(s: &mut Reference, op: &HeadDivergence) -> Result<()> {
    check("head_divergence", op.weight)?;
    let (head, other) = (logits!(s, op, "head_divergence"), other!(s, op, "head_divergence"));
    let mut tokens = Vec::with_capacity(head.x.rows);
    for n in 0..head.x.rows {
        let (z, z2) = (head.of(n), other.of(n));
        let (lse, lse2) = (log_sum_exp(z.iter().copied()), log_sum_exp(z2.iter().copied()));
        tokens.push([of_token(op.weight, &logs(op.weight, (&z, lse), (&z2, lse2))), lse, lse2]);
    }
    s.write(&op.kl, &row(tokens.iter().map(|token| token[0])))?;
    s.write_opt(&op.lse, &row(tokens.iter().map(|token| token[1])))?;
    s.write_opt(&op.lse2, &row(tokens.iter().map(|token| token[2])))
}

/// Cotangents of the first model's hidden states, weight and bias.
pub fn backward(s: &mut Reference, op: &HeadDivergenceBackward) -> Result<()> {
    check("head_divergence_backward", op.weight)?;
    let head = logits!(s, op, "head_divergence_backward");
    let other = other!(s, op, "head_divergence_backward");
    let (lse, lse2, dkl) = (s.read(&op.lse)?, s.read(&op.lse2)?, s.read(&op.dkl)?);
    let mut gradients = Gradients::of(&head);
    for n in 0..head.x.rows {
        let (z, z2) = (head.of(n), other.of(n));
        let slopes = slopes(op.weight, &logs(op.weight, (&z, lse.data[n]), (&z2, lse2.data[n])));
        let d: Vec<f64> = z.iter().zip(slopes).map(|(&z, slope)| head.raw(z, dkl.data[n] * slope)).collect();
        gradients.add(&head, n, &d);
    }
    gradients.write(s, &op.dx, &op.dw, &op.dbias)
}
