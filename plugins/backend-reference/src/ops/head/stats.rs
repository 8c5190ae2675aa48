//! Statistics of the softmax per token, their backward, and both in one pass.

use super::{Gradients, Logits, at, log_sum_exp, logits, row};
use crate::{Reference, matrix::Matrix, session::require};
use plugin_api::{
    Result,
    backend::ops::{HeadBackward, HeadFused, HeadStats},
};

plugin_api::operations! {
    HeadOps for Reference:
    head_stats HeadStats => stats,
    head_backward HeadBackward => backward,
    head_fused HeadFused => fused,
    sample Sample => super::super::sample::sample,
}

/// The logits with their targets.
struct Head {
    logits: Logits,
    targets: Vec<usize>,
}

macro_rules! head {
    ($s:expr, $op:expr, $name:literal) => {{
        let logits = logits!($s, $op, $name);
        let targets = $s.indices($name, "targets", &$op.targets, logits.w.rows)?;
        Head { logits, targets }
    }};
}

/// The statistics of one token.
struct Stats {
    logp: f64,
    lse: f64,
    entropy: f64,
    mean_logit: f64,
    top1: f64,
}

/// The cotangents of one token's statistics.
struct Cotangents {
    dlogp: f64,
    dlse: f64,
    dmean_logit: f64,
    dentropy: f64,
}

impl Head {
    fn statistics(&self, n: usize, z: &[f64]) -> Stats {
        let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = log_sum_exp(z.iter().copied());
        Stats {
            logp: z[self.targets[n]] - lse,
            lse,
            // A token of probability 0 adds nothing, not 0 times infinity.
            entropy: z.iter().map(|z| lse - z).filter(|&i| i < f64::INFINITY).map(|i| (-i).exp() * i).sum(),
            mean_logit: z.iter().sum::<f64>() / z.len() as f64,
            top1: z.iter().position(|&z| z == largest).unwrap_or(0) as f64,
        }
    }

    /// Cotangent of `x w^T + bias` for one token, from its logits and the cotangents of its statistics.
    fn cotangent(&self, n: usize, z: &[f64], lse: f64, entropy: f64, d: &Cotangents) -> Vec<f64> {
        let through = |v: usize| {
            let logp = z[v] - lse;
            let p = logp.exp();
            let hit = f64::from(u8::from(v == self.targets[n]));
            let mut dz = d.dlogp * (hit - p) + d.dlse * p + d.dmean_logit / z.len() as f64;
            // The entropy may be absent if its cotangent is 0; probability 0 adds nothing.
            if d.dentropy != 0.0 && p > 0.0 {
                dz -= d.dentropy * p * (logp + entropy);
            }
            self.logits.raw(z[v], dz)
        };
        (0..z.len()).map(through).collect()
    }
}

/// Statistics per token.
pub fn stats(s: &mut Reference, op: &HeadStats) -> Result<()> {
    let head = head!(s, op, "head_stats");
    let mut logits = Matrix::zeros(0, head.logits.w.rows);
    let mut stats = Vec::with_capacity(head.logits.x.rows);
    for n in 0..head.logits.x.rows {
        let z = head.logits.of(n);
        stats.push(head.statistics(n, &z));
        if op.logits.is_some() {
            logits.data.extend_from_slice(&z);
            logits.rows += 1;
        }
    }
    s.write(&op.logp, &row(stats.iter().map(|t| t.logp)))?;
    s.write_opt(&op.lse, &row(stats.iter().map(|t| t.lse)))?;
    s.write_opt(&op.entropy, &row(stats.iter().map(|t| t.entropy)))?;
    s.write_opt(&op.mean_logit, &row(stats.iter().map(|t| t.mean_logit)))?;
    s.write_opt(&op.top1, &row(stats.iter().map(|t| t.top1)))?;
    s.write_opt(&op.logits, &logits)
}

/// Cotangents of hidden states, weight and bias from those of the statistics.
pub fn backward(s: &mut Reference, op: &HeadBackward) -> Result<()> {
    let head = head!(s, op, "head_backward");
    require(op.dentropy.is_none() || op.entropy.is_some(), "head_backward", || {
        "`dentropy` needs the forward's `entropy`".into()
    })?;
    let (lse, kept) = (s.read(&op.lse)?, s.read_opt(&op.logits)?);
    let (entropy, dentropy) = (s.read_opt(&op.entropy)?, s.read_opt(&op.dentropy)?);
    let (dlogp, dlse) = (s.read_opt(&op.dlogp)?, s.read_opt(&op.dlse)?);
    let dmean_logit = s.read_opt(&op.dmean_logit)?;
    let mut gradients = Gradients::of(&head.logits);
    for n in 0..head.logits.x.rows {
        let z = kept.as_ref().map_or_else(|| head.logits.of(n), |kept| kept.row(n).to_vec());
        let cotangents = Cotangents {
            dlogp: at(&dlogp, n),
            dlse: at(&dlse, n),
            dmean_logit: at(&dmean_logit, n),
            dentropy: at(&dentropy, n),
        };
        let d = head.cotangent(n, &z, lse.data[n], at(&entropy, n), &cotangents);
        gradients.add(&head.logits, n, &d);
    }
    gradients.write(s, &op.dx, &op.dw, &op.dbias)
}

/// Statistics and gradients from one computation of the logits.
pub fn fused(s: &mut Reference, op: &HeadFused) -> Result<()> {
    let head = head!(s, op, "head_fused");
    let (dlogp, dlse) = (s.read(&op.dlogp)?, s.read_opt(&op.dlse)?);
    let dmean_logit = s.read_opt(&op.dmean_logit)?;
    let mut gradients = Gradients::of(&head.logits);
    let mut stats = Vec::with_capacity(head.logits.x.rows);
    for n in 0..head.logits.x.rows {
        let z = head.logits.of(n);
        let token = head.statistics(n, &z);
        let cotangents =
            Cotangents { dlogp: dlogp.data[n], dlse: at(&dlse, n), dmean_logit: at(&dmean_logit, n), dentropy: 0.0 };
        let d = head.cotangent(n, &z, token.lse, token.entropy, &cotangents);
        gradients.add(&head.logits, n, &d);
        stats.push(token);
    }
    s.write(&op.logp, &row(stats.iter().map(|t| t.logp)))?;
    s.write_opt(&op.lse, &row(stats.iter().map(|t| t.lse)))?;
    s.write_opt(&op.entropy, &row(stats.iter().map(|t| t.entropy)))?;
    s.write_opt(&op.mean_logit, &row(stats.iter().map(|t| t.mean_logit)))?;
    s.write_opt(&op.top1, &row(stats.iter().map(|t| t.top1)))?;
    gradients.write(s, &op.dx, &op.dw, &op.dbias)
}
