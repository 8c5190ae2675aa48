//! Statistics of the softmax per token, their backward, and both in one pass.

use super::{Chunk, Logits, logits, rows};
use crate::{
    TorchSession,
    fault::{Attempt, Done, require},
    fused::{head as kernels, launch::Kernels},
    storage::to,
};
use plugin_api::backend::{
    View,
    ops::{HeadBackward, HeadFused, HeadStats},
};
use tch::{Kind, Tensor};

plugin_api::operations! {
    HeadOps for TorchSession:
    head_stats HeadStats => stats,
    head_backward HeadBackward => backward,
    head_fused HeadFused => fused,
    sample Sample => crate::ops::sample::sample,
}

/// The logits with their targets, `[N, 1]`.
struct Head {
    logits: Logits,
    targets: Tensor,
}

macro_rules! head {
    ($s:expr, $op:expr, $name:literal) => {{
        let logits = logits!($s, $op, $name);
        Head { logits, targets: $s.index($name, "targets", &$op.targets, $op.w.rows)?.f_unsqueeze(1)? }
    }};
}

/// The outputs for a chunk's statistics.
struct Outputs<'a> {
    logp: &'a View,
    lse: &'a Option<View>,
    entropy: &'a Option<View>,
    mean_logit: &'a Option<View>,
    top1: &'a Option<View>,
}

/// The cotangents of a chunk's statistics, as columns.
#[derive(Default)]
struct Cotangents {
    dlogp: Option<Tensor>,
    dlse: Option<Tensor>,
    dmean_logit: Option<Tensor>,
    /// With the forward's entropy.
    dentropy: Option<(Tensor, Tensor)>,
}

/// Log-probabilities below this have probability 0 in every type; the floor keeps 0 times infinity out of sums.
const NEVER: f64 = -1e4;

impl Head {
    /// Writes the chunk's statistics and returns the log-probabilities of the whole vocabulary.
    fn statistics(&self, s: &TorchSession, chunk: Chunk, z: &Tensor, out: &Outputs<'_>) -> Attempt<Tensor> {
        let logp = z.f_log_softmax(-1, None)?;
        chunk.column(s, out.logp)?.f_copy_(&logp.f_gather(1, &rows(&self.targets, chunk)?, false)?)?;
        if out.lse.is_some() || out.top1.is_some() {
            let top1 = z.f_argmax(1, true)?;
            let at_top = |t: &Tensor| t.f_gather(1, &top1, false);
            // The difference is computed at the largest logit, where it cancels least.
            chunk.write(s, out.lse, || Ok(at_top(z)?.f_sub(&at_top(&logp)?)?))?;
            chunk.write(s, out.top1, || Ok(top1.shallow_clone()))?;
        }
        chunk.write(s, out.mean_logit, || Ok(z.f_mean_dim([1i64].as_slice(), true, None)?))?;
        chunk.write(s, out.entropy, || {
            let parts = logp.f_exp()?.f_mul_(&logp.f_clamp_min(NEVER)?)?;
            Ok(parts.f_sum_dim_intlist([1i64].as_slice(), true, None)?.f_neg_()?)
        })?;
        Ok(logp)
    }

    /// The chunk for the fused kernels, whose targets are `targets`; `raw` are raw logits.
    fn fused<'a>(&'a self, raw: &'a Tensor, targets: &'a Tensor) -> kernels::Chunk<'a> {
        let Logits { dtype, temperature, softcap, scale, .. } = self.logits;
        kernels::Chunk { raw, bias: self.logits.bias.as_ref(), targets, dtype, temperature, softcap, scale }
    }

    /// [`Head::statistics`] by the fused kernels, from raw logits; also writes the logits to `logits`, all tokens' own. Returns the
    /// log-sum-exps.
    fn fused_statistics(
        &self,
        (s, own): (&TorchSession, &Kernels),
        chunk: Chunk,
        raw: &Tensor,
        out: &Outputs<'_>,
        logits: Option<&Tensor>,
    ) -> Attempt<Tensor> {
        let temporary = |kind: Kind| Tensor::f_empty([chunk.count, 1], (kind, raw.device()));
        let lse = match out.lse {
            Some(lse) => chunk.column(s, lse)?,
            None => temporary(self.logits.acc)?,
        };
        let statistics = kernels::Statistics {
            logp: chunk.column(s, out.logp)?,
            lse: Some(lse.shallow_clone()),
            entropy: chunk.column_opt(s, out.entropy)?,
            mean_logit: chunk.column_opt(s, out.mean_logit)?,
            // The operand is in the host's memory.
            top1: if out.top1.is_some() { Some(temporary(Kind::Int64)?) } else { None },
            logits: logits.map(|logits| rows(logits, chunk)).transpose()?,
        };
        self.fused(raw, &rows(&self.targets, chunk)?).statistics(own, &statistics)?;
        if let Some(top1) = statistics.top1 {
            chunk.write(s, out.top1, || Ok(top1))?;
        }
        Ok(lse)
    }

    /// [`Head::cotangent`] by the fused kernels, in the compute type, from raw logits, whose memory it may use; from logits if they
    /// were `kept`.
    fn fused_cotangent(
        &self,
        own: &Kernels,
        chunk: Chunk,
        (raw, kept): (&Tensor, bool),
        lse: &Tensor,
        d: &Cotangents,
    ) -> Attempt<Tensor> {
        let cotangents = kernels::Cotangents {
            entropy: d.dentropy.as_ref().map(|(_, entropy)| entropy),
            dlogp: d.dlogp.as_ref(),
            dlse: d.dlse.as_ref(),
            dmean_logit: d.dmean_logit.as_ref(),
            dentropy: d.dentropy.as_ref().map(|(dentropy, _)| dentropy),
        };
        self.fused(raw, &rows(&self.targets, chunk)?).cotangent(own, lse, &cotangents, !kept, kept)
    }

    /// Cotangent of `x w^T + bias`, from the logits and their log-probabilities.
    fn cotangent(&self, chunk: Chunk, z: &Tensor, logp: Tensor, d: &Cotangents) -> Attempt<Tensor> {
        let entropy_part = match &d.dentropy {
            // p (log p + entropy) dentropy.
            Some((dentropy, entropy)) => {
                Some(logp.f_clamp_min(NEVER)?.f_add_(entropy)?.f_mul_(&logp.f_exp()?)?.f_mul_(dentropy)?)
            }
            None => None,
        };
        let mut logp = logp;
        let mut dz = logp.f_exp_()?;
        match (&d.dlogp, &d.dlse) {
            (Some(dlogp), Some(dlse)) => dz.f_mul_(&dlse.f_sub(dlogp)?).done()?,
            (Some(dlogp), None) => dz.f_mul_(&dlogp.f_neg()?).done()?,
            (None, Some(dlse)) => dz.f_mul_(dlse).done()?,
            (None, None) => dz.f_zero_().done()?,
        }
        if let Some(dlogp) = &d.dlogp {
            dz.f_scatter_add_(1, &rows(&self.targets, chunk)?, dlogp).done()?;
        }
        if let Some(dmean_logit) = &d.dmean_logit {
            dz.f_add_(&dmean_logit.f_div_scalar(self.logits.w.size()[0] as f64)?).done()?;
        }
        if let Some(part) = entropy_part {
            dz.f_sub_(&part).done()?;
        }
        self.logits.raw(z, dz)
    }
}

/// Statistics per token.
pub fn stats(s: &mut TorchSession, op: &HeadStats) -> Attempt {
    let head = head!(s, op, "head_stats");
    let out =
        Outputs { logp: &op.logp, lse: &op.lse, entropy: &op.entropy, mean_logit: &op.mean_logit, top1: &op.top1 };
    let logits = s.at_opt(&op.logits)?;
    for chunk in head.logits.chunks() {
        if let Some(own) = s.kernels() {
            let raw = head.logits.raw_of(chunk)?;
            let _lse = head.fused_statistics((s, own), chunk, &raw, &out, logits.as_ref())?;
            continue;
        }
        let z = head.logits.of(chunk)?;
        let _log_probabilities = head.statistics(s, chunk, &z, &out)?;
        if let Some(logits) = &logits {
            rows(logits, chunk)?.f_copy_(&z)?;
        }
    }
    Ok(())
}

/// Cotangents of hidden states, weight and bias from those of the statistics.
pub fn backward(s: &mut TorchSession, op: &HeadBackward) -> Attempt {
    let head = head!(s, op, "head_backward");
    require(op.dentropy.is_none() || op.entropy.is_some(), "head_backward", || {
        "`dentropy` needs the forward's `entropy`".into()
    })?;
    let (kept, dx) = (s.at_opt(&op.logits)?, s.at(&op.dx)?);
    let (mut dw, mut dbias) = (s.at_opt(&op.dw)?, s.at_opt(&op.dbias)?);
    for chunk in head.logits.chunks() {
        let z = match &kept {
            Some(kept) => to(&rows(kept, chunk)?, head.logits.acc)?,
            None if s.kernels().is_some() => head.logits.raw_of(chunk)?,
            None => head.logits.of(chunk)?,
        };
        let d = Cotangents {
            dlogp: chunk.column_opt(s, &op.dlogp)?,
            dlse: chunk.column_opt(s, &op.dlse)?,
            dmean_logit: chunk.column_opt(s, &op.dmean_logit)?,
            dentropy: chunk.column_opt(s, &op.dentropy)?.zip(chunk.column_opt(s, &op.entropy)?),
        };
        let lse = chunk.column(s, &op.lse)?;
        let dz = match s.kernels() {
            Some(own) => head.fused_cotangent(own, chunk, (&z, kept.is_some()), &lse, &d)?,
            None => head.cotangent(chunk, &z, z.f_sub(&lse)?, &d)?,
        };
        head.logits.gradients(chunk, &dz, &dx, &mut dw, &mut dbias)?;
    }
    Ok(())
}

/// Statistics and gradients from one computation of the logits.
pub fn fused(s: &mut TorchSession, op: &HeadFused) -> Attempt {
    let head = head!(s, op, "head_fused");
    let out =
        Outputs { logp: &op.logp, lse: &op.lse, entropy: &op.entropy, mean_logit: &op.mean_logit, top1: &op.top1 };
    let dx = s.at(&op.dx)?;
    let (mut dw, mut dbias) = (s.at_opt(&op.dw)?, s.at_opt(&op.dbias)?);
    for chunk in head.logits.chunks() {
        let d = Cotangents {
            dlogp: Some(chunk.column(s, &op.dlogp)?),
            dlse: chunk.column_opt(s, &op.dlse)?,
            dmean_logit: chunk.column_opt(s, &op.dmean_logit)?,
            dentropy: None,
        };
        let dz = match s.kernels() {
            Some(own) => {
                let raw = head.logits.raw_of(chunk)?;
                let lse = head.fused_statistics((s, own), chunk, &raw, &out, None)?;
                head.fused_cotangent(own, chunk, (&raw, false), &lse, &d)?
            }
            None => {
                let z = head.logits.of(chunk)?;
                let logp = head.statistics(s, chunk, &z, &out)?;
                head.cotangent(chunk, &z, logp, &d)?
            }
        };
        head.logits.gradients(chunk, &dz, &dx, &mut dw, &mut dbias)?;
    }
    Ok(())
}
