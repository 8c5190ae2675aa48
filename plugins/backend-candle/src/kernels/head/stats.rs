//! Statistics of the softmax per token, their backward, and both in one pass.

use super::{Gradients, Ints, Logits, logits, per_token, reserve};
use crate::{
    check,
    kernels::{
        context::{Kernels, kernels},
        primitives::{
            element::{Element, load_row, store_row},
            math::{exp_nonpositive, max, sum},
            operand::{Mat, MatMut},
        },
    },
};
use plugin_api::{
    Error, Result,
    backend::ops::{HeadBackward, HeadFused, HeadStats},
};

kernels! {
    HeadOps:
    head_stats HeadStats [x] => stats,
    head_backward HeadBackward [x] => backward,
    head_fused HeadFused [x] => fused,
    sample Sample [logits] => crate::kernels::sample::sample,
}

/// The logits with their targets.
struct Head<'a, E> {
    logits: Logits<E>,
    targets: &'a [i32],
}

macro_rules! head {
    ($s:expr, $op:expr, $name:literal) => {{
        let logits = logits!($s, $op, $name);
        let targets = $s.ints(&$op.targets)?;
        check::indices($name, "targets", targets, logits.w.rows)?;
        Head { logits, targets }
    }};
}

/// The outputs for statistics; each a row of one value per token.
#[derive(Clone, Copy)]
struct Outputs {
    logp: MatMut,
    lse: Option<MatMut>,
    entropy: Option<MatMut>,
    mean_logit: Option<MatMut>,
    /// The first element of the row of indices.
    top1: Option<Ints>,
}

/// The given cotangents; each a row of one value per token.
#[derive(Clone, Copy, Default)]
struct Cotangents {
    dlogp: Option<Mat>,
    dlse: Option<Mat>,
    dmean_logit: Option<Mat>,
    dentropy: Option<Mat>,
}

/// Statistics of one token.
struct Token {
    lse: f32,
    entropy: f32,
}

impl<E: Element> Head<'_, E> {
    /// Computes the statistics of token `n` from its logits, and writes those that are requested.
    #[inline(always)]
    fn statistics(&self, n: usize, z: &[f32], out: &Outputs) -> Token {
        let largest = max(z);
        let total = sum([z], |[z]| exp_nonpositive(z - largest));
        let lse = largest + total.ln();
        let target = z[self.targets[n] as usize];
        let mut entropy = 0.0;
        // SAFETY: each token belongs to one task; outputs overlap nothing.
        unsafe {
            out.logp.row(0)[n] = (target - largest) - total.ln();
            if let Some(row) = out.lse {
                row.row(0)[n] = lse;
            }
            if let Some(row) = out.entropy {
                // A logit of minus infinity has probability 0 and adds nothing.
                let along = sum([z], |[z]| {
                    let d = z - largest;
                    let e = exp_nonpositive(d);
                    if e > 0.0 { e * d } else { 0.0 }
                });
                entropy = total.ln() - along / total;
                row.row(0)[n] = entropy;
            }
            if let Some(row) = out.mean_logit {
                row.row(0)[n] = sum([z], |[z]| z) / z.len() as f32;
            }
            if let Some(row) = out.top1 {
                row.write(n, z.iter().position(|z| *z == largest).unwrap_or(0) as i32);
            }
        }
        Token { lse, entropy }
    }

    /// Logits of token `n` become the cotangents of `x w^T + bias`.
    #[inline(always)]
    fn cotangents(&self, n: usize, z: &mut [f32], lse: f32, entropy: f32, d: &Cotangents) {
        // SAFETY: checked rows of one value per token, only read.
        let at = |row: Option<Mat>| row.map_or(0.0, |row| unsafe { row.row(0)[n] });
        let (dlogp, dentropy) = (at(d.dlogp), at(d.dentropy));
        let factor = self.logits.scale / self.logits.temperature;
        let level = at(d.dmean_logit) / z.len() as f32 * factor;
        let share = (at(d.dlse) - dlogp) * factor;
        let target = self.targets[n] as usize;
        let z_target = z[target];
        if self.logits.softcap > 0.0 || dentropy != 0.0 {
            let to_tanh = if self.logits.softcap > 0.0 { self.logits.temperature / self.logits.softcap } else { 0.0 };
            let spread = dentropy * factor;
            for z in z.iter_mut() {
                let logp = *z - lse;
                let p = exp_nonpositive(logp);
                let t = *z * to_tanh;
                let tilt = if p > 0.0 { spread * (logp + entropy) } else { 0.0 };
                *z = p.mul_add(share - tilt, level) * (1.0 - t * t);
            }
            let t = z_target * to_tanh;
            z[target] += dlogp * factor * (1.0 - t * t);
            return;
        }
        z.iter_mut().for_each(|z| *z = exp_nonpositive(*z - lse).mul_add(share, level));
        z[target] += dlogp * factor;
    }
}

/// Statistics per token.
pub fn stats<E: Element>(s: &mut Kernels<'_>, op: &HeadStats) -> Result<()> {
    let head: Head<'_, E> = head!(s, op, "head_stats");
    let out = Outputs {
        logp: s.output(&op.logp)?,
        lse: s.output_opt(&op.lse)?,
        entropy: s.output_opt(&op.entropy)?,
        mean_logit: s.output_opt(&op.mean_logit)?,
        top1: op.top1.as_ref().map(|view| s.ints_start(view).map(Ints)).transpose()?,
    };
    let kept: Option<MatMut<E>> = s.output_opt(&op.logits)?;
    // The output serves as the buffer if it has the buffer's type.
    let in_place = kept.and_then(MatMut::as_f32);
    if in_place.is_none() {
        reserve(&mut s.cx.logits, &head.logits, 1);
    }
    let (par, buffer) = (&s.cx.par, &mut s.cx.logits);
    head.logits.chunks(|first, tokens| {
        let z = match in_place {
            Some(kept) => kept.block(first, tokens, 0, head.logits.w.rows),
            None => MatMut::over(buffer, tokens, head.logits.w.rows),
        };
        // SAFETY: only this operation accesses the buffer or the output.
        unsafe { head.logits.fill(par, first, z) };
        per_token(
            par,
            z,
            #[inline(always)]
            |r, z| {
                head.statistics(first + r, z, &out);
                if let (Some(kept), None) = (kept, in_place) {
                    // SAFETY: each token belongs to one task; outputs overlap nothing.
                    store_row(unsafe { kept.row(first + r) }, z);
                }
            },
        );
    });
    Ok(())
}

/// Cotangents of hidden states, weight and bias from those of the statistics.
pub fn backward<E: Element>(s: &mut Kernels<'_>, op: &HeadBackward) -> Result<()> {
    let head: Head<'_, E> = head!(s, op, "head_backward");
    if op.dentropy.is_some() && op.entropy.is_none() {
        return Err(Error::invalid("head_backward: `dentropy` needs the forward's `entropy`"));
    }
    let (lse, entropy): (Mat, Option<Mat>) = (s.input(&op.lse)?, s.input_opt(&op.entropy)?);
    let kept: Option<Mat<E>> = s.input_opt(&op.logits)?;
    let given = Cotangents {
        dlogp: s.input_opt(&op.dlogp)?,
        dlse: s.input_opt(&op.dlse)?,
        dmean_logit: s.input_opt(&op.dmean_logit)?,
        dentropy: s.input_opt(&op.dentropy)?,
    };
    let wanted = Gradients { dx: s.output(&op.dx)?, dw: s.output_opt(&op.dw)?, dbias: s.output_opt(&op.dbias)? };
    reserve(&mut s.cx.logits, &head.logits, 1);
    let (par, buffer) = (&s.cx.par, &mut s.cx.logits);
    head.logits.chunks(|first, tokens| {
        let z = MatMut::over(buffer, tokens, head.logits.w.rows);
        if kept.is_none() {
            // SAFETY: only this operation accesses the buffer.
            unsafe { head.logits.fill(par, first, z) };
        }
        per_token(
            par,
            z,
            #[inline(always)]
            |r, z| {
                let n = first + r;
                // SAFETY: checked views, only read.
                let (lse, entropy) = unsafe { (lse.row(0)[n], entropy.map_or(0.0, |row| row.row(0)[n])) };
                if let Some(kept) = kept {
                    // SAFETY: as above.
                    load_row(z, unsafe { kept.row(n) });
                }
                head.cotangents(n, z, lse, entropy, &given);
            },
        );
        // SAFETY: only this operation accesses the gradients, which overlap no input (alias rules).
        unsafe { head.logits.gradients(par, first, z.as_mat(), &wanted) };
    });
    Ok(())
}

/// Statistics and gradients from one computation of the logits.
pub fn fused<E: Element>(s: &mut Kernels<'_>, op: &HeadFused) -> Result<()> {
    let head: Head<'_, E> = head!(s, op, "head_fused");
    let given = Cotangents {
        dlogp: Some(s.input(&op.dlogp)?),
        dlse: s.input_opt(&op.dlse)?,
        dmean_logit: s.input_opt(&op.dmean_logit)?,
        dentropy: None,
    };
    let out = Outputs {
        logp: s.output(&op.logp)?,
        lse: s.output_opt(&op.lse)?,
        entropy: s.output_opt(&op.entropy)?,
        mean_logit: s.output_opt(&op.mean_logit)?,
        top1: op.top1.as_ref().map(|view| s.ints_start(view).map(Ints)).transpose()?,
    };
    let wanted = Gradients { dx: s.output(&op.dx)?, dw: s.output_opt(&op.dw)?, dbias: s.output_opt(&op.dbias)? };
    reserve(&mut s.cx.logits, &head.logits, 1);
    let (par, buffer) = (&s.cx.par, &mut s.cx.logits);
    head.logits.chunks(|first, tokens| {
        let z = MatMut::over(buffer, tokens, head.logits.w.rows);
        // SAFETY: only this operation accesses the buffer.
        unsafe { head.logits.fill(par, first, z) };
        per_token(
            par,
            z,
            #[inline(always)]
            |r, z| {
                let token = head.statistics(first + r, z, &out);
                head.cotangents(first + r, z, token.lse, token.entropy, &given);
            },
        );
        // SAFETY: as in `backward`.
        unsafe { head.logits.gradients(par, first, z.as_mat(), &wanted) };
    });
    Ok(())
}
