//! The divergence between two heads.

use super::{Logits, logits};
use crate::{
    TorchSession,
    fault::{Attempt, Done, require},
};
use plugin_api::backend::ops::{HeadDivergence, HeadDivergenceBackward};
use tch::Tensor;

plugin_api::operations! {
    DivergenceOps for TorchSession:
    head_divergence HeadDivergence => divergence,
    head_divergence_backward HeadDivergenceBackward => backward,
}

/// The logarithms of p and q, and of m where the weight is neither 0 nor 1.
struct Logs {
    p: Tensor,
    q: Tensor,
    m: Option<Tensor>,
    weight: f64,
}

/// `exp(logp) d`, and 0 where the probability is 0. Overwrites `d`.
fn weighted(logp: &Tensor, mut d: Tensor) -> Attempt<Tensor> {
    let p = logp.f_exp()?;
    d.f_mul_(&p).done()?;
    d.f_masked_fill_(&p.f_eq(0.0)?, 0.0).done()?;
    Ok(d)
}

fn sum(terms: &Tensor) -> Attempt<Tensor> {
    Ok(terms.f_sum_dim_intlist([1i64].as_slice(), true, None)?)
}

impl Logs {
    fn of(weight: f64, p: Tensor, q: Tensor) -> Attempt<Logs> {
        let m = match weight {
            0.0 | 1.0 => None,
            w => Some(q.f_add_scalar(w.ln())?.f_logaddexp(&p.f_add_scalar((-w).ln_1p())?)?),
        };
        Ok(Logs { p, q, m, weight })
    }

    /// The divergence per row, as a column; rounding may take a tiny one below 0.
    fn divergence(&self) -> Attempt<Tensor> {
        let (p, q) = (&self.p, &self.q);
        let mut divergence = match &self.m {
            None if self.weight == 0.0 => sum(&weighted(q, q.f_sub(p)?)?)?,
            None => sum(&weighted(p, p.f_sub(q)?)?)?,
            Some(m) => {
                let q_m = sum(&weighted(q, q.f_sub(m)?)?)?.f_mul_scalar_(self.weight)?;
                q_m.f_add(&sum(&weighted(p, p.f_sub(m)?)?)?.f_mul_scalar_(1.0 - self.weight)?)?
            }
        };
        Ok(divergence.f_clamp_min_(0.0)?)
    }

    /// The derivative of the divergence by each logit.
    fn slopes(&self) -> Attempt<Tensor> {
        let mut by_p = match &self.m {
            None if self.weight == 0.0 => return Ok(self.p.f_exp()?.f_sub_(&self.q.f_exp()?)?),
            None => self.p.f_sub(&self.q)?,
            Some(m) => self.p.f_sub(m)?.f_mul_scalar_(1.0 - self.weight)?,
        };
        let mean = sum(&weighted(&self.p, by_p.f_detach_copy()?)?)?;
        by_p.f_sub_(&mean).done()?;
        weighted(&self.p, by_p)
    }
}

macro_rules! pair {
    ($s:expr, $op:expr, $name:literal) => {{
        require((0.0..=1.0).contains(&$op.weight), $name, || format!("weight {} is outside 0..=1", $op.weight))?;
        let attributes = [$op.temperature, $op.softcap2, $op.scale2];
        (logits!($s, $op, $name), Logits::read($s, $name, (&$op.x2, &$op.w2, &$op.bias2), attributes)?)
    }};
}

/// The divergence per token.
pub fn divergence(s: &mut TorchSession, op: &HeadDivergence) -> Attempt {
    let (head, other) = pair!(s, op, "head_divergence");
    for chunk in head.chunks() {
        let (z, z2) = (head.of(chunk)?, other.of(chunk)?);
        let (lse, lse2) = (z.f_logsumexp([1i64].as_slice(), true)?, z2.f_logsumexp([1i64].as_slice(), true)?);
        let logs = Logs::of(op.weight, z.f_log_softmax(-1, None)?, z2.f_log_softmax(-1, None)?)?;
        chunk.write(s, &Some(op.kl), || logs.divergence())?;
        chunk.write(s, &op.lse, || Ok(lse))?;
        chunk.write(s, &op.lse2, || Ok(lse2))?;
    }
    Ok(())
}

/// Cotangents of the first model's hidden states, weight and bias.
pub fn backward(s: &mut TorchSession, op: &HeadDivergenceBackward) -> Attempt {
    let (head, other) = pair!(s, op, "head_divergence_backward");
    let dx = s.at(&op.dx)?;
    let (mut dw, mut dbias) = (s.at_opt(&op.dw)?, s.at_opt(&op.dbias)?);
    for chunk in head.chunks() {
        let (z, mut z2) = (head.of(chunk)?, other.of(chunk)?);
        z2.f_sub_(&chunk.column(s, &op.lse2)?).done()?;
        let logs = Logs::of(op.weight, z.f_sub(&chunk.column(s, &op.lse)?)?, z2)?;
        let dz = logs.slopes()?.f_mul_(&chunk.column(s, &op.dkl)?)?;
        head.gradients(chunk, &head.raw(&z, dz)?, &dx, &mut dw, &mut dbias)?;
    }
    Ok(())
}
