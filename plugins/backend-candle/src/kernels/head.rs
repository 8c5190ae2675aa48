//! The language-model head by chunks of tokens: the logits of a chunk are in one reused buffer, are used for statistics and
//! cotangents, and are overwritten by those of the next chunk.

use super::linear::add_column_sums;
use crate::check;
use crate::kernels::{
    context::Kernels,
    primitives::{
        gemm::{Start, plain, product, transposed},
        math::{exp_nonpositive, max, sum, tanh},
        operand::{Mat, MatMut},
        parallel::Parallel,
    },
};
use plugin_api::{
    Error, Result,
    backend::ops::{HeadBackward, HeadFused, HeadStats},
};

plugin_api::operations! {
    HeadOps for Kernels<'_>:
    head_stats HeadStats => stats,
    head_backward HeadBackward => backward,
    head_fused HeadFused => fused,
    sample Sample => super::sample::sample,
}

/// Maximum number of logits in a chunk, unless 64 tokens need more: 32 MiB.
const CHUNK: usize = 1 << 23;

/// Tokens of a chunk. Depends only on the vocabulary.
pub fn chunk_tokens(vocabulary: usize) -> usize {
    (CHUNK / vocabulary.max(1)).clamp(64, 1024) / 64 * 64
}

/// How hidden states become logits: `z = cap(scale (x w^T + bias)) / temperature`.
struct Head<'a> {
    x: Mat,
    w: Mat,
    bias: Option<Mat>,
    targets: &'a [i32],
    temperature: f32,
    softcap: f32,
    scale: f32,
}

macro_rules! head {
    ($s:expr, $op:expr, $name:literal) => {{
        let (s, op) = (&*$s, $op);
        check::temperature($name, op.temperature)?;
        let (x, w, targets) = (s.input(&op.x)?, s.input(&op.w)?, s.ints(&op.targets)?);
        check::indices($name, "targets", targets, w.rows)?;
        let bias = s.input_opt(&op.bias)?;
        let (temperature, softcap) = (op.temperature as f32, op.softcap as f32);
        Head { x, w, bias, targets, temperature, softcap, scale: op.scale as f32 }
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

/// An i32 row to write.
#[derive(Clone, Copy)]
struct Ints(*mut i32);
// SAFETY: a plain address; its one use is justified there.
unsafe impl Send for Ints {}
// SAFETY: as above.
unsafe impl Sync for Ints {}

/// The given cotangents; each a row of one value per token.
#[derive(Clone, Copy, Default)]
struct Cotangents {
    dlogp: Option<Mat>,
    dlse: Option<Mat>,
    dmean_logit: Option<Mat>,
    dentropy: Option<Mat>,
}

/// The outputs for gradients.
#[derive(Clone, Copy)]
struct Gradients {
    dx: MatMut,
    dw: Option<MatMut>,
    dbias: Option<MatMut>,
}

/// Statistics of one token.
struct Token {
    lse: f32,
    entropy: f32,
}

impl Head<'_> {
    /// Fills `z` with the logits of the tokens that start at `first`.
    ///
    /// # Safety
    /// No other code accesses `z`, which overlaps no operand.
    unsafe fn logits(&self, par: &Parallel, first: usize, z: MatMut) {
        let x = self.x.block(first, z.rows, 0, self.x.cols);
        // Without a bias or a cap, scale and temperature are applied in the product.
        let linear = self.bias.is_none() && self.softcap <= 0.0;
        let alpha = if linear { self.scale / self.temperature } else { 1.0 };
        let start = self.bias.map_or(Start::Zero, Start::Row);
        // SAFETY: checked views; only the caller accesses `z`.
        unsafe { product(par, z, plain(x), transposed(self.w), alpha, start) };
        if linear || (self.softcap <= 0.0 && self.scale == self.temperature) {
            return;
        }
        let (scale, cap, inverse) = (self.scale, self.softcap, 1.0 / self.temperature);
        par.rows(z.rows, z.cols, if cap > 0.0 { 800 } else { 100 }, |r| {
            par.wide(
                #[inline(always)]
                || {
                    // SAFETY: rows are disjoint.
                    let row = unsafe { z.row(r) };
                    if cap > 0.0 {
                        row.iter_mut().for_each(|z| *z = cap * tanh(scale * *z / cap) * inverse);
                    } else {
                        row.iter_mut().for_each(|z| *z *= scale * inverse);
                    }
                },
            );
        });
    }

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
            if let Some(Ints(first)) = out.top1 {
                *first.add(n) = z.iter().position(|z| *z == largest).unwrap_or(0) as i32;
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
        let factor = self.scale / self.temperature;
        let level = at(d.dmean_logit) / z.len() as f32 * factor;
        let share = (at(d.dlse) - dlogp) * factor;
        let target = self.targets[n] as usize;
        let z_target = z[target];
        if self.softcap > 0.0 || dentropy != 0.0 {
            let to_tanh = if self.softcap > 0.0 { self.temperature / self.softcap } else { 0.0 };
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

    /// Gradients from the cotangents `d` of the tokens that start at `first`.
    ///
    /// # Safety
    /// No other code accesses the gradients, which overlap no operand.
    unsafe fn gradients(&self, par: &Parallel, first: usize, d: Mat, g: &Gradients) {
        let x = self.x.block(first, d.rows, 0, self.x.cols);
        let dx = g.dx.block(first, d.rows, 0, self.x.cols);
        // SAFETY: guaranteed by the caller.
        unsafe {
            product(par, dx, plain(d), plain(self.w), 1.0, Start::Zero);
            if let Some(dw) = g.dw {
                product(par, dw, transposed(d), plain(x), 1.0, Start::Accumulate);
            }
            if let Some(dbias) = g.dbias {
                add_column_sums(par, dbias, d);
            }
        }
    }

    /// Calls `f(first token, tokens)` for each chunk.
    fn chunks(&self, mut f: impl FnMut(usize, usize)) {
        let tokens = chunk_tokens(self.w.rows);
        for first in (0..self.x.rows).step_by(tokens) {
            f(first, tokens.min(self.x.rows - first));
        }
    }
}

/// Enlarges the buffer for a chunk's logits.
fn reserve(buffer: &mut Vec<f32>, head: &Head<'_>) {
    let len = chunk_tokens(head.w.rows).min(head.x.rows) * head.w.rows;
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}

fn per_token(par: &Parallel, z: MatMut, f: impl Fn(usize, &mut [f32]) + Sync) {
    par.rows(z.rows, z.cols, 1200, |r| {
        par.wide(
            #[inline(always)]
            // SAFETY: rows are disjoint, and no product is running.
            || f(r, unsafe { z.row(r) }),
        );
    });
}

/// Statistics per token.
pub fn stats(s: &mut Kernels<'_>, op: &HeadStats) -> Result<()> {
    let head = head!(s, op, "head_stats");
    let out = Outputs {
        logp: s.output(&op.logp)?,
        lse: s.output_opt(&op.lse)?,
        entropy: s.output_opt(&op.entropy)?,
        mean_logit: s.output_opt(&op.mean_logit)?,
        top1: op.top1.as_ref().map(|view| s.ints_mut(view).map(|row| Ints(row.as_mut_ptr()))).transpose()?,
    };
    let kept = s.output_opt(&op.logits)?;
    if kept.is_none() {
        reserve(&mut s.cx.logits, &head);
    }
    let (par, buffer) = (&s.cx.par, &mut s.cx.logits);
    head.chunks(|first, tokens| {
        let z = match kept {
            Some(kept) => kept.block(first, tokens, 0, head.w.rows),
            None => MatMut::over(buffer, tokens, head.w.rows),
        };
        // SAFETY: only this operation accesses the buffer or the output.
        unsafe { head.logits(par, first, z) };
        per_token(
            par,
            z,
            #[inline(always)]
            |r, z| {
                head.statistics(first + r, z, &out);
            },
        );
    });
    Ok(())
}

/// Cotangents of hidden states, weight and bias from those of the statistics.
pub fn backward(s: &mut Kernels<'_>, op: &HeadBackward) -> Result<()> {
    let head = head!(s, op, "head_backward");
    if op.dentropy.is_some() && op.entropy.is_none() {
        return Err(Error::invalid("head_backward: `dentropy` needs the forward's `entropy`"));
    }
    let (lse, kept, entropy) = (s.input(&op.lse)?, s.input_opt(&op.logits)?, s.input_opt(&op.entropy)?);
    let given = Cotangents {
        dlogp: s.input_opt(&op.dlogp)?,
        dlse: s.input_opt(&op.dlse)?,
        dmean_logit: s.input_opt(&op.dmean_logit)?,
        dentropy: s.input_opt(&op.dentropy)?,
    };
    let wanted = Gradients { dx: s.output(&op.dx)?, dw: s.output_opt(&op.dw)?, dbias: s.output_opt(&op.dbias)? };
    reserve(&mut s.cx.logits, &head);
    let (par, buffer) = (&s.cx.par, &mut s.cx.logits);
    head.chunks(|first, tokens| {
        let z = MatMut::over(buffer, tokens, head.w.rows);
        if kept.is_none() {
            // SAFETY: only this operation accesses the buffer.
            unsafe { head.logits(par, first, z) };
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
                    z.copy_from_slice(unsafe { kept.row(n) });
                }
                head.cotangents(n, z, lse, entropy, &given);
            },
        );
        // SAFETY: only this operation accesses the gradients, which overlap no input (alias rules).
        unsafe { head.gradients(par, first, z.as_mat(), &wanted) };
    });
    Ok(())
}

/// Statistics and gradients from one computation of the logits.
pub fn fused(s: &mut Kernels<'_>, op: &HeadFused) -> Result<()> {
    let head = head!(s, op, "head_fused");
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
        top1: op.top1.as_ref().map(|view| s.ints_mut(view).map(|row| Ints(row.as_mut_ptr()))).transpose()?,
    };
    let wanted = Gradients { dx: s.output(&op.dx)?, dw: s.output_opt(&op.dw)?, dbias: s.output_opt(&op.dbias)? };
    reserve(&mut s.cx.logits, &head);
    let (par, buffer) = (&s.cx.par, &mut s.cx.logits);
    head.chunks(|first, tokens| {
        let z = MatMut::over(buffer, tokens, head.w.rows);
        // SAFETY: only this operation accesses the buffer.
        unsafe { head.logits(par, first, z) };
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
        unsafe { head.gradients(par, first, z.as_mat(), &wanted) };
    });
    Ok(())
}

plugin_api::operations! { DivergenceOps for Kernels<'_>: }
plugin_api::operations! { CandidateOps for Kernels<'_>: }
