//! The divergence between two heads. A chunk of tokens has its logits of both models next to each other in the reused buffer.

use super::{Gradients, Logits, logits, reserve};
use crate::{
    check,
    kernels::{
        context::{Kernels, kernels},
        primitives::{
            element::Element,
            math::{exp_nonpositive, larger, ln_1p_fraction, max, sum},
            operand::MatMut,
            parallel::Parallel,
        },
    },
};
use plugin_api::{
    Result,
    backend::ops::{HeadDivergence, HeadDivergenceBackward},
};

kernels! {
    DivergenceOps:
    head_divergence HeadDivergence [x] => divergence,
    head_divergence_backward HeadDivergenceBackward [x] => backward,
}

/// Which divergence.
#[derive(Clone, Copy)]
enum Kind {
    /// KL(q || p).
    Forward,
    /// KL(p || q).
    Reverse,
    /// The weight w, `1 - w`, and their logarithms.
    Mixed { w: f32, rest: f32, ln_w: f32, ln_rest: f32 },
}

impl Kind {
    fn of(weight: f64) -> Kind {
        match weight {
            0.0 => Kind::Forward,
            1.0 => Kind::Reverse,
            w => Kind::Mixed { w: w as f32, rest: (1.0 - w) as f32, ln_w: w.ln() as f32, ln_rest: (-w).ln_1p() as f32 },
        }
    }
}

/// The two models.
struct Pair<E> {
    head: Logits<E>,
    other: Logits<E>,
    kind: Kind,
}

macro_rules! pair {
    ($s:expr, $op:expr, $name:literal) => {{
        check::weight($name, $op.weight)?;
        let other = logits!($s, $op, $name, x2 w2 bias2 softcap2 scale2);
        Pair { head: logits!($s, $op, $name), other, kind: Kind::of($op.weight) }
    }};
}

/// The largest logit and the logarithm of `sum exp (z - largest)`: two numbers, because their sum is less accurate.
#[derive(Clone, Copy)]
struct Total {
    largest: f32,
    log: f32,
}

impl Total {
    #[inline(always)]
    fn of(z: &[f32]) -> Total {
        let largest = max(z);
        Total { largest, log: sum([z], |[z]| exp_nonpositive(z - largest)).ln() }
    }

    #[inline(always)]
    fn lse(self) -> f32 {
        self.largest + self.log
    }

    #[inline(always)]
    fn logp(self, z: f32) -> f32 {
        (z - self.largest) - self.log
    }
}

/// `log m` from `log p + log (1 - w)` and `log q + log w`.
#[inline(always)]
fn mixture(p: f32, q: f32) -> f32 {
    let high = larger(p, q);
    let low = if p > q { q } else { p };
    high + ln_1p_fraction(exp_nonpositive(low - high))
}

/// `p d`, and 0 if `p` is 0 and `d` infinite.
#[inline(always)]
fn weighted(p: f32, d: f32) -> f32 {
    if p != 0.0 { p * d } else { 0.0 }
}

impl Kind {
    /// The divergence of a token; rounding may take a tiny one below 0.
    #[inline(always)]
    fn of_token(self, (z, p): (&[f32], Total), (z2, q): (&[f32], Total)) -> f32 {
        let sum = match self {
            Kind::Forward => sum([z, z2], |[z, z2]| {
                let (p, q) = (p.logp(z), q.logp(z2));
                weighted(exp_nonpositive(q), q - p)
            }),
            Kind::Reverse => sum([z, z2], |[z, z2]| {
                let (p, q) = (p.logp(z), q.logp(z2));
                weighted(exp_nonpositive(p), p - q)
            }),
            Kind::Mixed { w, rest, ln_w, ln_rest } => sum([z, z2], |[z, z2]| {
                let (p, q) = (p.logp(z), q.logp(z2));
                let m = mixture(p + ln_rest, q + ln_w);
                w * weighted(exp_nonpositive(q), q - m) + rest * weighted(exp_nonpositive(p), p - m)
            }),
        };
        // NaN stays NaN.
        if sum < 0.0 { 0.0 } else { sum }
    }

    /// Replaces the first model's logits of a token by the cotangents of its raw logits. Overwrites `z2`.
    #[inline(always)]
    fn cotangents(
        self,
        (z, lse): (&mut [f32], f32),
        (z2, lse2): (&mut [f32], f32),
        dkl: f32,
        slope: impl Fn(f32) -> f32,
    ) {
        let by_p = match self {
            Kind::Forward => {
                for (z, z2) in z.iter_mut().zip(&*z2) {
                    let (p, q) = (exp_nonpositive(*z - lse), exp_nonpositive(*z2 - lse2));
                    *z = dkl * (p - q) * slope(*z);
                }
                return;
            }
            Kind::Reverse => None,
            Kind::Mixed { rest, ln_w, ln_rest, .. } => Some((rest, ln_w, ln_rest)),
        };
        for (z, z2) in z.iter().zip(&mut *z2) {
            let (p, q) = (*z - lse, *z2 - lse2);
            *z2 = match by_p {
                None => p - q,
                Some((rest, ln_w, ln_rest)) => rest * (p - mixture(p + ln_rest, q + ln_w)),
            };
        }
        let mean = sum([&*z, &*z2], |[z, g]| weighted(exp_nonpositive(z - lse), g));
        for (z, g) in z.iter_mut().zip(&*z2) {
            *z = dkl * weighted(exp_nonpositive(*z - lse), g - mean) * slope(*z);
        }
    }
}

impl<E: Element> Pair<E> {
    /// Calls `f(token, z, z2)` for every token of the chunk that starts at `first`, with both models' logits. `done` gets
    /// the first model's logits afterwards.
    fn chunks(
        &self,
        par: &Parallel,
        buffer: &mut [f32],
        f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
        done: impl Fn(usize, MatMut),
    ) {
        let vocabulary = self.head.w.rows;
        let (ours, theirs) = buffer.split_at_mut(buffer.len() / 2);
        self.head.chunks(|first, tokens| {
            let (z, z2) = (MatMut::over(ours, tokens, vocabulary), MatMut::over(theirs, tokens, vocabulary));
            // SAFETY: only this operation accesses the buffer.
            unsafe {
                self.head.fill(par, first, z);
                self.other.fill(par, first, z2);
            }
            par.rows(tokens, vocabulary, 3000, |r| {
                par.wide(
                    #[inline(always)]
                    // SAFETY: rows are disjoint, and no product is running.
                    || f(first + r, unsafe { z.row(r) }, unsafe { z2.row(r) }),
                );
            });
            done(first, z);
        });
    }
}

/// The divergence per token.
pub fn divergence<E: Element>(s: &mut Kernels<'_>, op: &HeadDivergence) -> Result<()> {
    let pair: Pair<E> = pair!(s, op, "head_divergence");
    let (kl, lse, lse2) = (s.output(&op.kl)?, s.output_opt(&op.lse)?, s.output_opt(&op.lse2)?);
    reserve(&mut s.cx.logits, &pair.head, 2);
    pair.chunks(
        &s.cx.par,
        &mut s.cx.logits,
        #[inline(always)]
        |n, z, z2| {
            let (p, q) = (Total::of(z), Total::of(z2));
            // SAFETY: each token belongs to one task; outputs overlap nothing.
            unsafe {
                kl.row(0)[n] = pair.kind.of_token((z, p), (z2, q));
                for (row, total) in [(lse, p), (lse2, q)] {
                    if let Some(row) = row {
                        row.row(0)[n] = total.lse();
                    }
                }
            }
        },
        |_, _| {},
    );
    Ok(())
}

/// Cotangents of the first model's hidden states, weight and bias.
pub fn backward<E: Element>(s: &mut Kernels<'_>, op: &HeadDivergenceBackward) -> Result<()> {
    let pair: Pair<E> = pair!(s, op, "head_divergence_backward");
    let (lse, lse2, dkl) = (s.input(&op.lse)?, s.input(&op.lse2)?, s.input(&op.dkl)?);
    let wanted = Gradients { dx: s.output(&op.dx)?, dw: s.output_opt(&op.dw)?, dbias: s.output_opt(&op.dbias)? };
    reserve(&mut s.cx.logits, &pair.head, 2);
    let par = &s.cx.par;
    pair.chunks(
        par,
        &mut s.cx.logits,
        #[inline(always)]
        |n, z, z2| {
            // SAFETY: checked views, only read.
            let [lse, lse2, dkl] = [lse, lse2, dkl].map(|row| unsafe { row.row(0)[n] });
            pair.kind.cotangents((z, lse), (z2, lse2), dkl, pair.head.slope());
        },
        // SAFETY: only this operation accesses the gradients, which overlap no input (alias rules).
        |first, z| unsafe { pair.head.gradients(par, first, z.as_mat(), &wanted) },
    );
    Ok(())
}
