//! The language-model head by chunks of tokens: the logits of a chunk are in one reused buffer, are used for statistics and
//! cotangents, and are overwritten by those of the next chunk.
//!
//! This file holds what all operations share, and a file per group holds the operations.

pub mod candidates;
mod divergence;
mod stats;

use super::linear::add_column_sums;
use crate::kernels::primitives::{
    element::Element,
    gemm::{Product, Start, plain, product, transposed},
    math::tanh,
    operand::{Mat, MatMut},
    parallel::{Parallel, grow},
};

/// Maximum number of logits in a chunk, unless 64 tokens need more: 32 MiB.
const CHUNK: usize = 1 << 23;

/// Tokens of a chunk. Depends only on the vocabulary.
pub fn chunk_tokens(vocabulary: usize) -> usize {
    (CHUNK / vocabulary.max(1)).clamp(64, 1024) / 64 * 64
}

/// How hidden states become logits: `z = cap(scale (x w^T + bias)) / temperature`.
struct Logits<E> {
    x: Mat<E>,
    w: Mat<E>,
    bias: Option<Mat<E>>,
    temperature: f32,
    softcap: f32,
    scale: f32,
}

/// The checked operands and attributes of an operation's logits.
macro_rules! logits {
    ($s:expr, $op:expr, $name:literal) => {
        logits!($s, $op, $name, x w bias softcap scale)
    };
    ($s:expr, $op:expr, $name:literal, $x:ident $w:ident $bias:ident $softcap:ident $scale:ident) => {{
        let (s, op) = (&*$s, $op);
        $crate::check::temperature($name, op.temperature)?;
        $crate::kernels::head::Logits {
            x: s.input(&op.$x)?,
            w: s.input(&op.$w)?,
            bias: s.input_opt(&op.$bias)?,
            temperature: op.temperature as f32,
            softcap: op.$softcap as f32,
            scale: op.$scale as f32,
        }
    }};
}
use logits;

/// The first element of an i32 matrix to write.
#[derive(Clone, Copy)]
struct Ints(*mut i32);
// SAFETY: a plain address; each use is justified where it happens.
unsafe impl Send for Ints {}
// SAFETY: as above.
unsafe impl Sync for Ints {}

impl Ints {
    /// Writes element `at`, counted from the first.
    ///
    /// # Safety
    /// The element lies inside the checked view, and no other task accesses it.
    #[inline(always)]
    unsafe fn write(self, at: usize, value: i32) {
        // SAFETY: guaranteed by the caller.
        unsafe { *self.0.add(at) = value };
    }
}

/// The outputs for gradients.
#[derive(Clone, Copy)]
struct Gradients<E> {
    dx: MatMut<E>,
    dw: Option<MatMut>,
    dbias: Option<MatMut>,
}

impl<E: Element> Logits<E> {
    /// Fills `z` with the logits of the tokens that start at `first`.
    ///
    /// # Safety
    /// No other code accesses `z`, which overlaps no operand.
    unsafe fn fill(&self, par: &Parallel, first: usize, z: MatMut) {
        let x = self.x.block(first, z.rows, 0, self.x.cols);
        // Without a bias or a cap, scale and temperature are applied in the product.
        let linear = self.bias.is_none() && self.softcap <= 0.0;
        let alpha = if linear { self.scale / self.temperature } else { 1.0 };
        let start = self.bias.map_or(Start::Zero, Start::Row);
        // SAFETY: checked views; only the caller accesses `z`.
        unsafe { product(par, Product { c: z, a: plain(x), b: transposed(self.w), alpha, start }) };
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

    /// Derivative of `z` by the raw logit, `x w^T + bias`, from the value of `z`.
    #[inline(always)]
    fn slope(&self) -> impl Fn(f32) -> f32 + use<E> {
        let factor = self.scale / self.temperature;
        let to_tanh = if self.softcap > 0.0 { self.temperature / self.softcap } else { 0.0 };
        move |z| {
            let t = z * to_tanh;
            factor * (1.0 - t * t)
        }
    }

    /// Gradients from the cotangents `d` of the tokens that start at `first`.
    ///
    /// # Safety
    /// No other code accesses the gradients, which overlap no operand.
    unsafe fn gradients(&self, par: &Parallel, first: usize, d: Mat, g: &Gradients<E>) {
        let x = self.x.block(first, d.rows, 0, self.x.cols);
        let dx = g.dx.block(first, d.rows, 0, self.x.cols);
        // SAFETY: guaranteed by the caller.
        unsafe {
            product(par, Product { c: dx, a: plain(d), b: plain(self.w), alpha: 1.0, start: Start::Zero });
            if let Some(dw) = g.dw {
                product(par, Product { c: dw, a: transposed(d), b: plain(x), alpha: 1.0, start: Start::Accumulate });
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

/// Enlarges the buffer for the logits of a chunk of `models` models. Its content may be lost.
fn reserve<E: Element>(buffer: &mut Vec<f32>, head: &Logits<E>, models: usize) {
    grow(buffer, models * chunk_tokens(head.w.rows).min(head.x.rows) * head.w.rows);
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
