//! The language-model head: statistics of the softmax per token, their backward, and both in one pass.

use super::attention::{cap, cap_slope};
use crate::{
    Reference,
    matrix::{Matrix, axpy, dot},
    session::require,
};
use plugin_api::{
    Result,
    backend::{
        View,
        ops::{HeadBackward, HeadFused, HeadStats},
    },
};

plugin_api::operations! {
    HeadOps for Reference:
    head_stats HeadStats => stats,
    head_backward HeadBackward => backward,
    head_fused HeadFused => fused,
    sample Sample => super::sample::sample,
}

/// How hidden states become logits: `z = cap(scale (x w^T + bias)) / temperature`.
struct Head {
    x: Matrix,
    w: Matrix,
    bias: Option<Matrix>,
    targets: Vec<usize>,
    temperature: f64,
    softcap: f64,
    scale: f64,
}

macro_rules! head {
    ($s:expr, $op:expr, $name:literal) => {{
        let (s, op) = (&*$s, $op);
        require(op.temperature > 0.0, $name, || format!("temperature {} is not positive", op.temperature))?;
        let w = s.read(&op.w)?;
        Head {
            x: s.read(&op.x)?,
            targets: s.indices($name, "targets", &op.targets, w.rows)?,
            w,
            bias: s.read_opt(&op.bias)?,
            temperature: op.temperature,
            softcap: op.softcap,
            scale: op.scale,
        }
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
    /// The token's logits `z`.
    fn logits(&self, n: usize) -> Vec<f64> {
        let z = |v: usize| {
            let raw = dot(self.x.row(n), self.w.row(v)) + self.bias.as_ref().map_or(0.0, |b| b.data[v]);
            cap(self.scale * raw, self.softcap) / self.temperature
        };
        (0..self.w.rows).map(z).collect()
    }

    fn statistics(&self, n: usize, z: &[f64]) -> Stats {
        let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = largest + z.iter().map(|z| (z - largest).exp()).sum::<f64>().ln();
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
            let capped = z[v] * self.temperature;
            dz / self.temperature * cap_slope(capped, self.softcap) * self.scale
        };
        (0..z.len()).map(through).collect()
    }
}

/// Gradients of the head's operands, being summed.
struct Gradients {
    dx: Matrix,
    dw: Matrix,
    dbias: Matrix,
}

impl Gradients {
    fn of(head: &Head) -> Self {
        Gradients {
            dx: Matrix::zeros(head.x.rows, head.x.cols),
            dw: Matrix::zeros(head.w.rows, head.w.cols),
            dbias: Matrix::zeros(1, head.w.rows),
        }
    }

    /// Adds one token's cotangent of the raw logits.
    fn add(&mut self, head: &Head, n: usize, d: &[f64]) {
        for (v, &d) in d.iter().enumerate() {
            axpy(self.dx.row_mut(n), d, head.w.row(v));
            axpy(self.dw.row_mut(v), d, head.x.row(n));
            self.dbias.data[v] += d;
        }
    }

    fn write(&self, s: &mut Reference, dx: &View, dw: &Option<View>, dbias: &Option<View>) -> Result<()> {
        s.write(dx, &self.dx)?;
        s.add_opt(dw, &self.dw)?;
        s.add_opt(dbias, &self.dbias)
    }
}

/// One row of a statistic over all tokens.
fn row(stats: &[Stats], pick: impl Fn(&Stats) -> f64) -> Matrix {
    Matrix { rows: 1, cols: stats.len(), data: stats.iter().map(pick).collect() }
}

/// An optional row's value, 0 where the row is absent.
fn at(row: &Option<Matrix>, n: usize) -> f64 {
    row.as_ref().map_or(0.0, |row| row.data[n])
}

/// Statistics per token.
pub fn stats(s: &mut Reference, op: &HeadStats) -> Result<()> {
    let head = head!(s, op, "head_stats");
    let mut logits = Matrix::zeros(0, head.w.rows);
    let mut stats = Vec::with_capacity(head.x.rows);
    for n in 0..head.x.rows {
        let z = head.logits(n);
        stats.push(head.statistics(n, &z));
        if op.logits.is_some() {
            logits.data.extend_from_slice(&z);
            logits.rows += 1;
        }
    }
    s.write(&op.logp, &row(&stats, |t| t.logp))?;
    s.write_opt(&op.lse, &row(&stats, |t| t.lse))?;
    s.write_opt(&op.entropy, &row(&stats, |t| t.entropy))?;
    s.write_opt(&op.mean_logit, &row(&stats, |t| t.mean_logit))?;
    s.write_opt(&op.top1, &row(&stats, |t| t.top1))?;
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
    let mut gradients = Gradients::of(&head);
    for n in 0..head.x.rows {
        let z = kept.as_ref().map_or_else(|| head.logits(n), |kept| kept.row(n).to_vec());
        let cotangents = Cotangents {
            dlogp: at(&dlogp, n),
            dlse: at(&dlse, n),
            dmean_logit: at(&dmean_logit, n),
            dentropy: at(&dentropy, n),
        };
        let d = head.cotangent(n, &z, lse.data[n], at(&entropy, n), &cotangents);
        gradients.add(&head, n, &d);
    }
    gradients.write(s, &op.dx, &op.dw, &op.dbias)
}

/// Statistics and gradients from one computation of the logits.
pub fn fused(s: &mut Reference, op: &HeadFused) -> Result<()> {
    let head = head!(s, op, "head_fused");
    let (dlogp, dlse) = (s.read(&op.dlogp)?, s.read_opt(&op.dlse)?);
    let dmean_logit = s.read_opt(&op.dmean_logit)?;
    let mut gradients = Gradients::of(&head);
    let mut stats = Vec::with_capacity(head.x.rows);
    for n in 0..head.x.rows {
        let z = head.logits(n);
        let token = head.statistics(n, &z);
        let cotangents =
            Cotangents { dlogp: dlogp.data[n], dlse: at(&dlse, n), dmean_logit: at(&dmean_logit, n), dentropy: 0.0 };
        let d = head.cotangent(n, &z, token.lse, token.entropy, &cotangents);
        gradients.add(&head, n, &d);
        stats.push(token);
    }
    s.write(&op.logp, &row(&stats, |t| t.logp))?;
    s.write_opt(&op.lse, &row(&stats, |t| t.lse))?;
    s.write_opt(&op.entropy, &row(&stats, |t| t.entropy))?;
    s.write_opt(&op.mean_logit, &row(&stats, |t| t.mean_logit))?;
    s.write_opt(&op.top1, &row(&stats, |t| t.top1))?;
    gradients.write(s, &op.dx, &op.dw, &op.dbias)
}
