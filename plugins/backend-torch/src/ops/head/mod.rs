//! The language-model head.
//!
//! Tokens are computed in chunks, so `[tokens, vocabulary]` never exists at once. Logits are kept in f32 for every compute
//! type: with a bf16 logit, rounding would decide between similar tokens. This file holds what all operations share, and a file
//! per group holds the operations.

mod candidates;
mod divergence;
mod stats;

use super::{
    attention::{cap_, cap_slope},
    linear::{add_column_sums, add_product},
};
use crate::{
    TorchSession,
    fault::{Attempt, Done, require},
    storage::{accumulator, size, to},
};
use plugin_api::backend::{DType, View};
use tch::{Kind, Tensor};

/// Maximum number of logits at a time.
pub const LOGITS_CPU: i64 = 1 << 22;
/// As [`LOGITS_CPU`], on a device.
pub const LOGITS_DEVICE: i64 = 1 << 27;

/// How hidden states become logits: `z = cap(scale (x w^T + bias)) / temperature`.
struct Logits {
    x: Tensor,
    w: Tensor,
    /// The weight in the layout for the product.
    factor: Tensor,
    bias: Option<Tensor>,
    /// The compute type.
    dtype: DType,
    /// The accumulator's kind.
    acc: Kind,
    temperature: f64,
    softcap: f64,
    scale: f64,
    chunk: i64,
}

/// The operands and attributes of an operation's logits.
macro_rules! logits {
    ($s:expr, $op:expr, $name:literal) => {
        $crate::ops::head::Logits::read(
            $s,
            $name,
            (&$op.x, &$op.w, &$op.bias),
            [$op.temperature, $op.softcap, $op.scale],
        )?
    };
}
use logits;

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

impl Logits {
    fn read(
        s: &TorchSession,
        name: &str,
        (x, w, bias): (&View, &View, &Option<View>),
        [temperature, softcap, scale]: [f64; 3],
    ) -> Attempt<Logits> {
        require(temperature > 0.0, name, || format!("temperature {temperature} is not positive"))?;
        let budget = if s.on_cpu() { LOGITS_CPU } else { LOGITS_DEVICE };
        let chunk = (budget / size(w.rows)?.max(1)).max(1);
        let dtype = x.dtype;
        let (x, w) = (s.at(x)?, s.at(w)?);
        let acc = accumulator(x.f_kind()?);
        Ok(Logits {
            // The processor has no product of bf16 with an f32 result.
            factor: if s.on_cpu() { to(&w, acc)? } else { w.shallow_clone() }.f_tr()?,
            bias: s.at_opt(bias)?,
            dtype,
            acc,
            temperature,
            softcap,
            scale,
            chunk,
            x,
            w,
        })
    }

    fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        let (tokens, chunk) = (self.x.size()[0], self.chunk);
        (0..tokens).step_by(chunk as usize).map(move |first| Chunk { first, count: chunk.min(tokens - first) })
    }

    /// The chunk's raw logits `x w^T`, in the accumulator.
    fn raw_of(&self, chunk: Chunk) -> Attempt<Tensor> {
        let x = rows(&self.x, chunk)?;
        Ok(if x.f_kind()? == self.acc || !x.device().is_cuda() {
            to(&x, self.acc)?.f_mm(&self.factor)?
        } else {
            x.f_mm_dtype(&self.factor, self.acc)?
        })
    }

    /// The chunk's logits `z`, in the accumulator.
    fn of(&self, chunk: Chunk) -> Attempt<Tensor> {
        let mut z = self.raw_of(chunk)?;
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

    /// Turns the cotangent of `z` into that of `x w^T + bias`.
    fn raw(&self, z: &Tensor, mut dz: Tensor) -> Attempt<Tensor> {
        // z is the capped score over the temperature.
        if let Some(slope) = cap_slope(z, self.softcap / self.temperature)? {
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
        narrow.f_mm_out(&rows(dx, chunk)?, &self.w).done()?;
        if let Some(dw) = dw {
            add_product(dw, &narrow, &rows(&self.x, chunk)?)?;
        }
        if let Some(dbias) = dbias {
            add_column_sums(dbias, dz)?;
        }
        Ok(())
    }
}

/// The chunk's rows of a matrix.
fn rows(t: &Tensor, chunk: Chunk) -> Attempt<Tensor> {
    Ok(t.f_narrow(0, chunk.first, chunk.count)?)
}
