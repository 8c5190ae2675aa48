//! The language-model head: statistics of the softmax per token, their backward, and both in one pass.
//!
//! Tokens are computed in chunks, so `[tokens, vocabulary]` never exists at once. Logits are kept in f32 for every compute
//! type: with a bf16 logit, rounding would decide between similar tokens.

use super::{
    attention::{cap_, cap_slope},
    linear::{add_column_sums, add_product},
};
use crate::{
    TorchSession,
    fault::{Attempt, Done, require},
    storage::{accumulator, size, to},
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
    sample Sample => super::sample::sample,
}

/// Maximum number of logits at a time.
pub const LOGITS_CPU: i64 = 1 << 22;
/// As [`LOGITS_CPU`], on a device.
pub const LOGITS_DEVICE: i64 = 1 << 27;

/// How hidden states become logits: `z = cap(scale (x w^T + bias)) / temperature`.
struct Head {
    x: Tensor,
    w: Tensor,
    /// The weight in the layout for the product.
    factor: Tensor,
    bias: Option<Tensor>,
    /// Target ids, `[N, 1]`.
    targets: Tensor,
    /// The accumulator's kind.
    acc: Kind,
    temperature: f64,
    softcap: f64,
    scale: f64,
    chunk: i64,
}

macro_rules! head {
    ($s:expr, $op:expr, $name:literal) => {{
        let (s, op) = (&*$s, $op);
        require(op.temperature > 0.0, $name, || format!("temperature {} is not positive", op.temperature))?;
        let (x, w) = (s.at(&op.x)?, s.at(&op.w)?);
        let acc = accumulator(x.f_kind()?);
        let budget = if s.on_cpu() { LOGITS_CPU } else { LOGITS_DEVICE };
        Head {
            targets: s.index($name, "targets", &op.targets, op.w.rows)?.f_unsqueeze(1)?,
            // The processor has no product of bf16 with an f32 result.
            factor: if s.on_cpu() { to(&w, acc)? } else { w.shallow_clone() }.f_tr()?,
            bias: s.at_opt(&op.bias)?,
            acc,
            temperature: op.temperature,
            softcap: op.softcap,
            scale: op.scale,
            chunk: (budget / size(op.w.rows)?.max(1)).max(1),
            x,
            w,
        }
    }};
}

/// Consecutive tokens.
#[derive(Clone, Copy)]
struct Chunk {
    first: i64,
    count: i64,
}

impl Chunk {
    /// The chunk's part of a row of values per token, as a column.
    fn column(self, s: &TorchSession, view: &View) -> Attempt<Tensor> {
        Ok(s.at(view)?.f_narrow(1, self.first, self.count)?.f_tr()?)
    }

    /// The same for an optional operand.
    fn column_opt(self, s: &TorchSession, view: &Option<View>) -> Attempt<Option<Tensor>> {
        view.as_ref().map(|view| self.column(s, view)).transpose()
    }

    /// Writes a column to an optional operand.
    fn write(self, s: &TorchSession, view: &Option<View>, column: impl FnOnce() -> Attempt<Tensor>) -> Attempt {
        match view {
            Some(view) => Ok(self.column(s, view)?.f_copy_(&column()?)?),
            None => Ok(()),
        }
    }
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
    fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        let (tokens, chunk) = (self.x.size()[0], self.chunk);
        (0..tokens).step_by(chunk as usize).map(move |first| Chunk { first, count: chunk.min(tokens - first) })
    }

    /// The chunk's rows of a matrix.
    fn rows(t: &Tensor, chunk: Chunk) -> Attempt<Tensor> {
        Ok(t.f_narrow(0, chunk.first, chunk.count)?)
    }

    /// The chunk's logits `z`, in the accumulator.
    fn logits(&self, chunk: Chunk) -> Attempt<Tensor> {
        let x = Head::rows(&self.x, chunk)?;
        let mut z = if x.f_kind()? == self.acc || !x.device().is_cuda() {
            to(&x, self.acc)?.f_mm(&self.factor)?
        } else {
            x.f_mm_dtype(&self.factor, self.acc)?
        };
        if let Some(bias) = &self.bias {
            z.f_add_(bias).done()?;
        }
        if self.softcap > 0.0 {
            z.f_mul_scalar_(self.scale).done()?;
            cap_(&mut z, self.softcap)?;
            z.f_div_scalar_(self.temperature).done()?;
        } else if self.scale / self.temperature != 1.0 {
            z.f_mul_scalar_(self.scale / self.temperature).done()?;
        }
        Ok(z)
    }

    /// Writes the chunk's statistics and returns the log-probabilities of the whole vocabulary.
    fn statistics(&self, s: &TorchSession, chunk: Chunk, z: &Tensor, out: &Outputs<'_>) -> Attempt<Tensor> {
        let logp = z.f_log_softmax(-1, None)?;
        chunk.column(s, out.logp)?.f_copy_(&logp.f_gather(1, &Head::rows(&self.targets, chunk)?, false)?)?;
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

    /// Cotangent of `x w^T + bias`, from the logits and their log-probabilities.
    fn cotangent(&self, chunk: Chunk, z: &Tensor, logp: Tensor, d: &Cotangents) -> Attempt<Tensor> {
        // z is the capped score over the temperature.
        let slope = cap_slope(z, self.softcap / self.temperature)?;
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
            dz.f_scatter_add_(1, &Head::rows(&self.targets, chunk)?, dlogp).done()?;
        }
        if let Some(dmean_logit) = &d.dmean_logit {
            dz.f_add_(&dmean_logit.f_div_scalar(self.w.size()[0] as f64)?).done()?;
        }
        if let Some(part) = entropy_part {
            dz.f_sub_(&part).done()?;
        }
        if let Some(slope) = slope {
            dz.f_mul_(&slope).done()?;
        }
        if self.scale / self.temperature != 1.0 {
            dz.f_mul_scalar_(self.scale / self.temperature).done()?;
        }
        Ok(dz)
    }

    /// Propagates the chunk's cotangent to hidden states, weight and bias.
    fn gradients(
        &self,
        chunk: Chunk,
        dz: &Tensor,
        dx: &Tensor,
        dw: &mut Option<Tensor>,
        dbias: &mut Option<Tensor>,
    ) -> Attempt {
        let narrow = to(dz, self.x.f_kind()?)?;
        narrow.f_mm_out(&Head::rows(dx, chunk)?, &self.w).done()?;
        if let Some(dw) = dw {
            add_product(dw, &narrow, &Head::rows(&self.x, chunk)?)?;
        }
        if let Some(dbias) = dbias {
            add_column_sums(dbias, dz)?;
        }
        Ok(())
    }
}

/// Statistics per token.
pub fn stats(s: &mut TorchSession, op: &HeadStats) -> Attempt {
    let head = head!(s, op, "head_stats");
    let out =
        Outputs { logp: &op.logp, lse: &op.lse, entropy: &op.entropy, mean_logit: &op.mean_logit, top1: &op.top1 };
    let logits = s.at_opt(&op.logits)?;
    for chunk in head.chunks() {
        let z = head.logits(chunk)?;
        let _log_probabilities = head.statistics(s, chunk, &z, &out)?;
        if let Some(logits) = &logits {
            Head::rows(logits, chunk)?.f_copy_(&z)?;
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
    for chunk in head.chunks() {
        let z = match &kept {
            Some(kept) => to(&Head::rows(kept, chunk)?, head.acc)?,
            None => head.logits(chunk)?,
        };
        let d = Cotangents {
            dlogp: chunk.column_opt(s, &op.dlogp)?,
            dlse: chunk.column_opt(s, &op.dlse)?,
            dmean_logit: chunk.column_opt(s, &op.dmean_logit)?,
            dentropy: chunk.column_opt(s, &op.dentropy)?.zip(chunk.column_opt(s, &op.entropy)?),
        };
        let logp = z.f_sub(&chunk.column(s, &op.lse)?)?;
        let dz = head.cotangent(chunk, &z, logp, &d)?;
        head.gradients(chunk, &dz, &dx, &mut dw, &mut dbias)?;
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
    for chunk in head.chunks() {
        let z = head.logits(chunk)?;
        let logp = head.statistics(s, chunk, &z, &out)?;
        let d = Cotangents {
            dlogp: Some(chunk.column(s, &op.dlogp)?),
            dlse: chunk.column_opt(s, &op.dlse)?,
            dmean_logit: chunk.column_opt(s, &op.dmean_logit)?,
            dentropy: None,
        };
        let dz = head.cotangent(chunk, &z, logp, &d)?;
        head.gradients(chunk, &dz, &dx, &mut dw, &mut dbias)?;
    }
    Ok(())
}

plugin_api::operations! { DivergenceOps for TorchSession: }
plugin_api::operations! { CandidateOps for TorchSession: }
