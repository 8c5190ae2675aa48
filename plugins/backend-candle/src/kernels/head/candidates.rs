//! Log-probabilities of several ids per token, their backward, and the most probable ids.

use super::{Gradients, Ints, Logits, logits, per_token, reserve};
use crate::{
    check,
    kernels::{
        context::{Kernels, kernels},
        primitives::{
            element::Element,
            math::{exp_nonpositive, max, sum},
            operand::{Mat, MatMut},
        },
    },
};
use plugin_api::{
    Error, Result,
    backend::ops::{HeadCandidates, HeadCandidatesBackward, HeadTopk},
};
use std::{cell::Cell, cmp::Ordering, collections::BinaryHeap};

kernels! {
    CandidateOps:
    head_candidates HeadCandidates [x] => candidates,
    head_candidates_backward HeadCandidatesBackward [x] => backward,
    head_topk HeadTopk [x] => topk,
}

/// Outputs for one token: log-probabilities of its ids, their tail, the log-sum-exp.
#[derive(Clone, Copy)]
struct Outputs {
    logp: MatMut,
    tail: Option<MatMut>,
    lse: Option<MatMut>,
}

impl Outputs {
    /// Writes the numbers of token `n` for `ids`, from its logits, whose elements at `ids` it overwrites.
    #[inline(always)]
    fn write(&self, n: usize, z: &mut [f32], ids: impl Iterator<Item = usize> + Clone) {
        let largest = max(z);
        let log = sum([&*z], |[z]| exp_nonpositive(z - largest)).ln();
        // SAFETY: each token belongs to one task; outputs overlap nothing.
        unsafe {
            self.logp.row(n).iter_mut().zip(ids.clone()).for_each(|(logp, id)| *logp = (z[id] - largest) - log);
            if let Some(row) = self.lse {
                row.row(0)[n] = largest + log;
            }
        }
        let Some(tail) = self.tail else { return };
        ids.for_each(|id| z[id] = f32::NEG_INFINITY);
        let rest = max(z);
        let of_rest = if rest != f32::NEG_INFINITY {
            let total = sum([&*z], |[z]| exp_nonpositive(z - rest)).ln();
            // A probability is at most 1, whatever the rounding of the two sums.
            let of_rest = (rest - largest) + (total - log);
            if of_rest > 0.0 { 0.0 } else { of_rest }
        } else {
            f32::NEG_INFINITY
        };
        // SAFETY: as above.
        unsafe { tail.row(0)[n] = of_rest };
    }
}

/// Log-probabilities of given ids.
pub fn candidates<E: Element>(s: &mut Kernels<'_>, op: &HeadCandidates) -> Result<()> {
    let head: Logits<E> = logits!(s, op, "head_candidates");
    let ids = s.int_rows(&op.ids)?;
    check::distinct("head_candidates", "ids", ids.iter(), head.w.rows)?;
    let out = Outputs { logp: s.output(&op.logp)?, tail: s.output_opt(&op.tail)?, lse: s.output_opt(&op.lse)? };
    reserve(&mut s.cx.logits, &head, 1);
    let (par, buffer) = (&s.cx.par, &mut s.cx.logits);
    head.chunks(|first, tokens| {
        let z = MatMut::over(buffer, tokens, head.w.rows);
        // SAFETY: only this operation accesses the buffer.
        unsafe { head.fill(par, first, z) };
        per_token(
            par,
            z,
            #[inline(always)]
            |r, z| out.write(first + r, z, ids.row(first + r).iter().map(|id| *id as usize)),
        );
    });
    Ok(())
}

thread_local! {
    /// The cotangents of a token's candidates, reused.
    static CANDIDATES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// The largest logits of a token, reused.
    static LARGEST: Cell<Vec<Ranked>> = const { Cell::new(Vec::new()) };
}

/// Cotangents of hidden states, weight and bias.
pub fn backward<E: Element>(s: &mut Kernels<'_>, op: &HeadCandidatesBackward) -> Result<()> {
    let head: Logits<E> = logits!(s, op, "head_candidates_backward");
    if op.dtail.is_some() && op.tail.is_none() {
        return Err(Error::invalid("head_candidates_backward: `dtail` needs the forward's `tail`"));
    }
    let ids = s.int_rows(&op.ids)?;
    check::distinct("head_candidates_backward", "ids", ids.iter(), head.w.rows)?;
    let (lse, tail): (Mat, Option<Mat>) = (s.input(&op.lse)?, s.input_opt(&op.tail)?);
    let (dlogp, dtail): (Option<Mat>, Option<Mat>) = (s.input_opt(&op.dlogp)?, s.input_opt(&op.dtail)?);
    // Without another id the tail is a constant.
    let dtail = dtail.filter(|_| (op.ids.cols as usize) < head.w.rows);
    let wanted = Gradients { dx: s.output(&op.dx)?, dw: s.output_opt(&op.dw)?, dbias: s.output_opt(&op.dbias)? };
    reserve(&mut s.cx.logits, &head, 1);
    let (par, buffer) = (&s.cx.par, &mut s.cx.logits);
    head.chunks(|first, tokens| {
        let z = MatMut::over(buffer, tokens, head.w.rows);
        // SAFETY: only this operation accesses the buffer.
        unsafe { head.fill(par, first, z) };
        per_token(
            par,
            z,
            #[inline(always)]
            |r, z| {
                let (n, slope) = (first + r, head.slope());
                // SAFETY: checked views, only read.
                let (lse, dlogp) = unsafe { (lse.row(0)[n], dlogp.map_or(&[][..], |dlogp| dlogp.row(n))) };
                // SAFETY: as above.
                let [tail, dtail] = [tail, dtail].map(|row| row.map_or(0.0, |row| unsafe { row.row(0)[n] }));
                let total = dlogp.iter().sum::<f32>() + dtail;
                let of_candidate = |k: usize, z: f32| {
                    let own = dlogp.get(k).copied().unwrap_or(0.0);
                    (own - total * exp_nonpositive(z - lse)) * slope(z)
                };
                let ids = ids.row(n);
                let mut d = CANDIDATES.take();
                d.clear();
                d.extend(ids.iter().enumerate().map(|(k, id)| of_candidate(k, z[*id as usize])));
                if dtail == 0.0 {
                    z.iter_mut().for_each(|z| *z = -total * exp_nonpositive(*z - lse) * slope(*z));
                } else {
                    // At candidates the share has no meaning; they are overwritten below.
                    for z in z.iter_mut() {
                        let logp = *z - lse;
                        let (p, share) = (exp_nonpositive(logp), exp_nonpositive(logp - tail));
                        *z = dtail.mul_add(share, -total * p) * slope(*z);
                    }
                }
                ids.iter().zip(&d).for_each(|(id, d)| z[*id as usize] = *d);
                CANDIDATES.set(d);
            },
        );
        // SAFETY: only this operation accesses the gradients, which overlap no input (alias rules).
        unsafe { head.gradients(par, first, z.as_mat(), &wanted) };
    });
    Ok(())
}

/// An id with its logit, ordered so that the largest is the one to drop first: the lowest logit, of equal ones the highest id.
#[derive(Clone, Copy)]
pub struct Ranked {
    z: f32,
    /// The id.
    pub id: usize,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        // Adding 0 makes the two zeros equal.
        (other.z + 0.0).total_cmp(&(self.z + 0.0)).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

/// Logits that are skipped together if none of them is large enough.
const BLOCK: usize = 64;

/// The `count` largest logits, the largest first; of equal ones the lowest id first. `kept` is memory to reuse.
#[inline(always)]
pub fn largest(z: &[f32], count: usize, mut kept: Vec<Ranked>) -> Vec<Ranked> {
    kept.clear();
    kept.reserve(count);
    let mut kept = BinaryHeap::from(kept);
    for (b, block) in z.chunks(BLOCK).enumerate() {
        let full = kept.len() == count;
        if full && kept.peek().is_none_or(|worst| max(block) <= worst.z) {
            continue;
        }
        for (at, &z) in block.iter().enumerate() {
            let ranked = Ranked { z, id: b * BLOCK + at };
            if kept.len() < count {
                kept.push(ranked);
            } else if kept.peek().is_some_and(|worst| z > worst.z) {
                kept.pop();
                kept.push(ranked);
            }
        }
    }
    kept.into_sorted_vec()
}

/// The most probable ids.
pub fn topk<E: Element>(s: &mut Kernels<'_>, op: &HeadTopk) -> Result<()> {
    check::top("head_topk", op.ids.cols, op.w.rows)?;
    let head: Logits<E> = logits!(s, op, "head_topk");
    let (count, stride) = (op.ids.cols as usize, op.ids.row_stride as usize);
    let out = Outputs { logp: s.output(&op.logp)?, tail: s.output_opt(&op.tail)?, lse: None };
    let found = Ints(s.ints_start(&op.ids)?);
    reserve(&mut s.cx.logits, &head, 1);
    let (par, buffer) = (&s.cx.par, &mut s.cx.logits);
    head.chunks(|first, tokens| {
        let z = MatMut::over(buffer, tokens, head.w.rows);
        // SAFETY: only this operation accesses the buffer.
        unsafe { head.fill(par, first, z) };
        per_token(
            par,
            z,
            #[inline(always)]
            |r, z| {
                let kept = largest(z, count, LARGEST.take());
                out.write(first + r, z, kept.iter().map(|ranked| ranked.id));
                for (k, ranked) in kept.iter().enumerate() {
                    // SAFETY: the element (first + r, k) of the checked view; each token belongs to one task.
                    unsafe { found.write((first + r) * stride + k, ranked.id as i32) };
                }
                LARGEST.set(kept);
            },
        );
    });
    Ok(())
}
