//! The language-model head by chunks of tokens.
//!
//! This file holds what all operations share, and a file per group holds the operations.

mod candidates;
mod divergence;
mod stats;

use super::{
    context::{Generic, Outcome},
    linear::matmul,
};
use crate::kernels::head::chunk_tokens;
use candle_core::{Result, Tensor};
use plugin_api::backend::View;

/// How hidden states become logits: `z = cap(scale (x w^T + bias)) / temperature`.
struct Logits {
    x: Tensor,
    w: Tensor,
    bias: Option<Tensor>,
    tokens: usize,
    vocabulary: usize,
    temperature: f64,
    softcap: f64,
    scale: f64,
}

/// The checked operands and attributes of an operation's logits.
macro_rules! logits {
    ($s:expr, $op:expr, $name:literal) => {
        logits!($s, $op, $name, x w bias softcap scale)
    };
    ($s:expr, $op:expr, $name:literal, $x:ident $w:ident $bias:ident $softcap:ident $scale:ident) => {{
        let (s, op) = (&*$s, $op);
        $crate::check::temperature($name, op.temperature)?;
        $crate::generic::head::Logits {
            x: s.input(&op.$x)?,
            w: s.input(&op.$w)?,
            bias: s.input_opt(&op.$bias)?,
            tokens: op.$x.rows as usize,
            vocabulary: op.$w.rows as usize,
            temperature: op.temperature,
            softcap: op.$softcap,
            scale: op.$scale,
        }
    }};
}
use logits;

impl Logits {
    /// `(first token, tokens)` of each chunk.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (tokens, step) = (self.tokens, chunk_tokens(self.vocabulary));
        (0..tokens).step_by(step).map(move |first| (first, step.min(tokens - first)))
    }

    /// The logits `z` of a chunk.
    fn of(&self, first: usize, tokens: usize) -> Result<Tensor> {
        let mut z = matmul(&self.x.narrow(0, first, tokens)?, &self.w.t()?)?;
        if let Some(bias) = &self.bias {
            z = z.broadcast_add(bias)?;
        }
        z = (z * self.scale)?;
        if self.softcap > 0.0 {
            z = ((z / self.softcap)?.tanh()? * self.softcap)?;
        }
        z / self.temperature
    }

    /// Cotangent of `x w^T + bias`, from `z` and its cotangent.
    fn raw(&self, z: &Tensor, mut dz: Tensor) -> Result<Tensor> {
        if self.softcap > 0.0 {
            let t = z.affine(self.temperature / self.softcap, 0.0)?;
            dz = (dz * t.sqr()?.affine(-1.0, 1.0)?)?;
        }
        dz.affine(self.scale / self.temperature, 0.0)
    }
}

/// Gradients, summed over chunks.
struct Gradients {
    dx: Vec<Tensor>,
    dw: Tensor,
    dbias: Tensor,
}

impl Gradients {
    fn of(head: &Logits) -> Result<Gradients> {
        let bias = Tensor::zeros((1, head.vocabulary), head.w.dtype(), head.w.device())?;
        Ok(Gradients { dx: Vec::new(), dw: head.w.zeros_like()?, dbias: bias })
    }

    /// Adds a chunk's cotangent of the raw logits.
    fn add(&mut self, head: &Logits, first: usize, d: &Tensor) -> Result<()> {
        self.dx.push(matmul(d, &head.w)?);
        self.dw = (&self.dw + matmul(&d.t()?, &head.x.narrow(0, first, d.dim(0)?)?)?)?;
        self.dbias = (&self.dbias + d.sum_keepdim(0)?)?;
        Ok(())
    }

    fn write(&self, s: &mut Generic<'_>, dx: &View, dw: &Option<View>, dbias: &Option<View>) -> Outcome {
        write_row(s, &Some(*dx), &self.dx)?;
        if let Some(view) = dw {
            s.add(view, &self.dw)?;
        }
        dbias.as_ref().map_or(Ok(()), |view| s.add(view, &self.dbias))
    }
}

/// A row of one value per token as a column of the chunk.
fn column(row: &Option<Tensor>, first: usize, tokens: usize) -> Result<Option<Tensor>> {
    row.as_ref().map(|row| row.narrow(1, first, tokens)?.reshape((tokens, 1))).transpose()
}

/// Writes the chunks' rows one after the other.
fn write_row(s: &mut Generic<'_>, view: &Option<View>, parts: &[Tensor]) -> Outcome {
    match view {
        Some(view) => {
            let whole = Tensor::cat(parts, 0)?;
            s.output(view, &whole)
        }
        None => Ok(()),
    }
}

/// `log sum exp z` of each row, as a column.
fn log_sum_exp(z: &Tensor) -> Result<Tensor> {
    let largest = z.max_keepdim(1)?;
    let log_total = z.broadcast_sub(&largest)?.exp()?.sum_keepdim(1)?.log()?;
    largest + log_total
}
