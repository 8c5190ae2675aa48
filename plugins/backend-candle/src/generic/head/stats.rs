//! Statistics of the softmax per token, their backward, and both in one pass.

use super::{Gradients, Logits, column, logits, write_row};
use crate::{
    check,
    generic::context::{Generic, Outcome},
};
use candle_core::{Result, Tensor};
use plugin_api::{
    Error,
    backend::ops::{HeadBackward, HeadFused, HeadStats},
};

plugin_api::operations! {
    HeadOps for Generic<'_>:
    head_stats HeadStats => stats,
    head_backward HeadBackward => backward,
    head_fused HeadFused => fused,
    sample Sample => crate::generic::sample::sample,
}

/// The logits with their targets, as a column.
struct Head {
    logits: Logits,
    targets: Tensor,
}

macro_rules! head {
    ($s:expr, $op:expr, $name:literal) => {{
        let targets = $s.ints(&$op.targets)?;
        check::indices($name, "targets", &targets, $op.w.rows as usize)?;
        let logits = logits!($s, $op, $name);
        if targets.is_empty() {
            return Ok(());
        }
        Head { targets: $s.index(&targets)?.reshape((targets.len(), 1))?, logits }
    }};
}

/// Statistics of a chunk: one column each.
struct Statistics {
    logp: Tensor,
    lse: Tensor,
    entropy: Tensor,
    mean_logit: Tensor,
    top1: Vec<u32>,
}

/// Cotangents of a chunk: one column for each that is given.
struct Cotangents {
    dlogp: Option<Tensor>,
    dlse: Option<Tensor>,
    dmean_logit: Option<Tensor>,
    dentropy: Option<Tensor>,
}

/// Rows of one value per token, collected over chunks.
#[derive(Default)]
struct Rows {
    logp: Vec<Tensor>,
    lse: Vec<Tensor>,
    entropy: Vec<Tensor>,
    mean_logit: Vec<Tensor>,
    top1: Vec<u32>,
}

impl Head {
    fn statistics(&self, first: usize, z: &Tensor) -> Result<Statistics> {
        let targets = self.targets.narrow(0, first, z.dim(0)?)?.contiguous()?;
        let largest = z.max_keepdim(1)?;
        let d = z.broadcast_sub(&largest)?;
        let e = d.exp()?;
        let total = e.sum_keepdim(1)?;
        let log_total = total.log()?;
        // Probability 0 adds nothing, not 0 times infinity.
        let zero = e.zeros_like()?;
        let along = e.gt(&zero)?.where_cond(&(&e * &d)?, &zero)?.sum_keepdim(1)?;
        Ok(Statistics {
            logp: (d.gather(&targets, 1)? - &log_total)?,
            lse: (&largest + &log_total)?,
            entropy: (&log_total - (along / total)?)?,
            mean_logit: z.sum_keepdim(1)?.affine(1.0 / self.logits.vocabulary as f64, 0.0)?,
            top1: z.argmax(1)?.to_vec1()?,
        })
    }

    /// Cotangent of `x w^T + bias` for a chunk.
    fn cotangents(
        &self,
        first: usize,
        z: &Tensor,
        lse: &Tensor,
        entropy: Option<&Tensor>,
        c: &Cotangents,
    ) -> Result<Tensor> {
        let targets = self.targets.narrow(0, first, z.dim(0)?)?.contiguous()?;
        let logp = z.broadcast_sub(lse)?;
        let p = logp.exp()?;
        let mut dz = z.zeros_like()?;
        if let Some(dlogp) = &c.dlogp {
            dz = (dz - p.broadcast_mul(dlogp)?)?.scatter_add(&targets, dlogp, 1)?;
        }
        if let Some(dlse) = &c.dlse {
            dz = (dz + p.broadcast_mul(dlse)?)?;
        }
        if let Some(dmean) = &c.dmean_logit {
            dz = dz.broadcast_add(&dmean.affine(1.0 / self.logits.vocabulary as f64, 0.0)?)?;
        }
        if let (Some(dentropy), Some(entropy)) = (&c.dentropy, entropy) {
            let zero = p.zeros_like()?;
            let tilt = (&p * logp.broadcast_add(entropy)?)?.broadcast_mul(dentropy)?;
            dz = (dz - p.gt(&zero)?.where_cond(&tilt, &zero)?)?;
        }
        self.logits.raw(z, dz)
    }
}

impl Rows {
    fn push(&mut self, s: Statistics) {
        self.logp.push(s.logp);
        self.lse.push(s.lse);
        self.entropy.push(s.entropy);
        self.mean_logit.push(s.mean_logit);
        self.top1.extend(s.top1);
    }
}

/// Statistics per token.
pub fn stats(s: &mut Generic<'_>, op: &HeadStats) -> Outcome {
    let head = head!(s, op, "head_stats");
    let (mut rows, mut logits) = (Rows::default(), Vec::new());
    for (first, tokens) in head.logits.chunks() {
        let z = head.logits.of(first, tokens)?;
        rows.push(head.statistics(first, &z)?);
        if op.logits.is_some() {
            logits.push(z);
        }
    }
    write_row(s, &Some(op.logp), &rows.logp)?;
    write_row(s, &op.lse, &rows.lse)?;
    write_row(s, &op.entropy, &rows.entropy)?;
    write_row(s, &op.mean_logit, &rows.mean_logit)?;
    write_row(s, &op.logits, &logits)?;
    op.top1.as_ref().map_or(Ok(()), |view| s.output_ints(view, &rows.top1))
}

/// Cotangents of hidden states, weight and bias from those of the statistics.
pub fn backward(s: &mut Generic<'_>, op: &HeadBackward) -> Outcome {
    if op.dentropy.is_some() && op.entropy.is_none() {
        return Err(Error::invalid("head_backward: `dentropy` needs the forward's `entropy`").into());
    }
    let head = head!(s, op, "head_backward");
    let (lse, kept, entropy) = (s.input_opt(&Some(op.lse))?, s.input_opt(&op.logits)?, s.input_opt(&op.entropy)?);
    let (dlogp, dlse) = (s.input_opt(&op.dlogp)?, s.input_opt(&op.dlse)?);
    let (dmean_logit, dentropy) = (s.input_opt(&op.dmean_logit)?, s.input_opt(&op.dentropy)?);
    let mut gradients = Gradients::of(&head.logits)?;
    for (first, tokens) in head.logits.chunks() {
        let z = match &kept {
            Some(kept) => kept.narrow(0, first, tokens)?,
            None => head.logits.of(first, tokens)?,
        };
        let cotangents = Cotangents {
            dlogp: column(&dlogp, first, tokens)?,
            dlse: column(&dlse, first, tokens)?,
            dmean_logit: column(&dmean_logit, first, tokens)?,
            dentropy: column(&dentropy, first, tokens)?,
        };
        let (lse, entropy) = (column(&lse, first, tokens)?, column(&entropy, first, tokens)?);
        let lse = lse.ok_or_else(|| Error::internal("head_backward: `lse` is missing"))?;
        let d = head.cotangents(first, &z, &lse, entropy.as_ref(), &cotangents)?;
        gradients.add(&head.logits, first, &d)?;
    }
    gradients.write(s, &op.dx, &op.dw, &op.dbias)
}

/// Statistics and gradients from one computation of the logits.
pub fn fused(s: &mut Generic<'_>, op: &HeadFused) -> Outcome {
    let head = head!(s, op, "head_fused");
    let (dlogp, dlse) = (s.input_opt(&Some(op.dlogp))?, s.input_opt(&op.dlse)?);
    let dmean_logit = s.input_opt(&op.dmean_logit)?;
    let (mut gradients, mut rows) = (Gradients::of(&head.logits)?, Rows::default());
    for (first, tokens) in head.logits.chunks() {
        let z = head.logits.of(first, tokens)?;
        let statistics = head.statistics(first, &z)?;
        let cotangents = Cotangents {
            dlogp: column(&dlogp, first, tokens)?,
            dlse: column(&dlse, first, tokens)?,
            dmean_logit: column(&dmean_logit, first, tokens)?,
            dentropy: None,
        };
        let d = head.cotangents(first, &z, &statistics.lse, None, &cotangents)?;
        gradients.add(&head.logits, first, &d)?;
        rows.push(statistics);
    }
    write_row(s, &Some(op.logp), &rows.logp)?;
    write_row(s, &op.lse, &rows.lse)?;
    write_row(s, &op.entropy, &rows.entropy)?;
    write_row(s, &op.mean_logit, &rows.mean_logit)?;
    if let Some(view) = &op.top1 {
        s.output_ints(view, &rows.top1)?;
    }
    gradients.write(s, &op.dx, &op.dw, &op.dbias)
}
