//! The divergence between two heads.

use super::{Gradients, Logits, column, log_sum_exp, logits, write_row};
use crate::{
    check,
    generic::context::{Generic, Outcome},
};
use candle_core::{Result, Tensor};
use plugin_api::{
    Error,
    backend::ops::{HeadDivergence, HeadDivergenceBackward},
};

plugin_api::operations! {
    DivergenceOps for Generic<'_>:
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

/// `exp(logp) d`, and 0 where the probability is 0.
fn weighted(logp: &Tensor, d: &Tensor) -> Result<Tensor> {
    let p = logp.exp()?;
    let zero = p.zeros_like()?;
    p.ne(&zero)?.where_cond(&(&p * d)?, &zero)
}

impl Logs {
    fn of(weight: f64, (z, lse): (&Tensor, &Tensor), (z2, lse2): (&Tensor, &Tensor)) -> Result<Logs> {
        let (p, q) = (z.broadcast_sub(lse)?, z2.broadcast_sub(lse2)?);
        let m = if weight == 0.0 || weight == 1.0 {
            None
        } else {
            let (a, b) = ((&q + weight.ln())?, (&p + (-weight).ln_1p())?);
            let high = a.maximum(&b)?;
            let far = (a.minimum(&b)? - &high)?.exp()?;
            Some((high + (far + 1.0)?.log()?)?)
        };
        Ok(Logs { p, q, m, weight })
    }

    /// The divergence per row, as a column; rounding may take a tiny one below 0.
    fn divergence(&self) -> Result<Tensor> {
        let terms = match &self.m {
            None if self.weight == 0.0 => weighted(&self.q, &(&self.q - &self.p)?)?,
            None => weighted(&self.p, &(&self.p - &self.q)?)?,
            Some(m) => {
                let (q, p) = (weighted(&self.q, &(&self.q - m)?)?, weighted(&self.p, &(&self.p - m)?)?);
                (q.affine(self.weight, 0.0)? + p.affine(1.0 - self.weight, 0.0)?)?
            }
        };
        let sum = terms.sum_keepdim(1)?;
        let zero = sum.zeros_like()?;
        sum.lt(&zero)?.where_cond(&zero, &sum)
    }

    /// The derivative of the divergence by each logit.
    fn slopes(&self) -> Result<Tensor> {
        let by_p = match &self.m {
            None if self.weight == 0.0 => return self.p.exp()? - self.q.exp()?,
            None => (&self.p - &self.q)?,
            Some(m) => (&self.p - m)?.affine(1.0 - self.weight, 0.0)?,
        };
        let mean = weighted(&self.p, &by_p)?.sum_keepdim(1)?;
        weighted(&self.p, &by_p.broadcast_sub(&mean)?)
    }
}

/// The two models.
macro_rules! pair {
    ($s:expr, $op:expr, $name:literal) => {{
        check::weight($name, $op.weight)?;
        let pair: (Logits, Logits) =
            (logits!($s, $op, $name), logits!($s, $op, $name, x2 w2 bias2 softcap2 scale2));
        if pair.0.tokens == 0 {
            return Ok(());
        }
        pair
    }};
}

/// The divergence per token.
pub fn divergence(s: &mut Generic<'_>, op: &HeadDivergence) -> Outcome {
    let (head, other) = pair!(s, op, "head_divergence");
    let (mut kl, mut lses, mut lses2) = (Vec::new(), Vec::new(), Vec::new());
    for (first, tokens) in head.chunks() {
        let (z, z2) = (head.of(first, tokens)?, other.of(first, tokens)?);
        let (lse, lse2) = (log_sum_exp(&z)?, log_sum_exp(&z2)?);
        kl.push(Logs::of(op.weight, (&z, &lse), (&z2, &lse2))?.divergence()?);
        lses.push(lse);
        lses2.push(lse2);
    }
    write_row(s, &Some(op.kl), &kl)?;
    write_row(s, &op.lse, &lses)?;
    write_row(s, &op.lse2, &lses2)
}

/// Cotangents of the first model's hidden states, weight and bias.
pub fn backward(s: &mut Generic<'_>, op: &HeadDivergenceBackward) -> Outcome {
    let (head, other) = pair!(s, op, "head_divergence_backward");
    let rows = [op.lse, op.lse2, op.dkl].map(|view| s.input_opt(&Some(view)));
    let mut gradients = Gradients::of(&head)?;
    let rows = rows.into_iter().collect::<Outcome<Vec<_>>>()?;
    for (first, tokens) in head.chunks() {
        let of = |at: usize| -> Outcome<Tensor> {
            let missing = || Error::internal("head_divergence_backward: an operand is missing");
            Ok(column(&rows[at], first, tokens)?.ok_or_else(missing)?)
        };
        let (z, z2) = (head.of(first, tokens)?, other.of(first, tokens)?);
        let slopes = Logs::of(op.weight, (&z, &of(0)?), (&z2, &of(1)?))?.slopes()?;
        gradients.add(&head, first, &head.raw(&z, slopes.broadcast_mul(&of(2)?)?)?)?;
    }
    gradients.write(s, &op.dx, &op.dw, &op.dbias)
}
