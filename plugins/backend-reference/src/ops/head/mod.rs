//! The language-model head: logits and gradients that its operations share, and a file per group of operations.

mod candidates;
mod divergence;
mod stats;

use super::attention::{cap, cap_slope};
use crate::{
    Reference,
    matrix::{Matrix, axpy, dot},
    session::require,
};
use plugin_api::{Result, backend::View};

/// How hidden states become logits: `z = cap(scale (x w^T + bias)) / temperature`.
struct Logits {
    x: Matrix,
    w: Matrix,
    bias: Option<Matrix>,
    temperature: f64,
    softcap: f64,
    scale: f64,
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

impl Logits {
    fn read(
        s: &Reference,
        name: &str,
        (x, w, bias): (&View, &View, &Option<View>),
        [temperature, softcap, scale]: [f64; 3],
    ) -> Result<Self> {
        require(temperature > 0.0, name, || format!("temperature {temperature} is not positive"))?;
        let (x, w, bias) = (s.read(x)?, s.read(w)?, s.read_opt(bias)?);
        Ok(Logits { x, w, bias, temperature, softcap, scale })
    }

    /// Token `n`'s logits `z`.
    fn of(&self, n: usize) -> Vec<f64> {
        let z = |v: usize| {
            let raw = dot(self.x.row(n), self.w.row(v)) + self.bias.as_ref().map_or(0.0, |b| b.data[v]);
            cap(self.scale * raw, self.softcap) / self.temperature
        };
        (0..self.w.rows).map(z).collect()
    }

    /// Cotangent of one raw logit, `x w^T + bias`, from `z` and its cotangent.
    fn raw(&self, z: f64, dz: f64) -> f64 {
        dz / self.temperature * cap_slope(z * self.temperature, self.softcap) * self.scale
    }
}

/// `log sum exp z`.
fn log_sum_exp(z: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = z.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + z.map(|z| (z - largest).exp()).sum::<f64>().ln()
}

/// Gradients of the head's operands, being summed.
struct Gradients {
    dx: Matrix,
    dw: Matrix,
    dbias: Matrix,
}

impl Gradients {
    fn of(head: &Logits) -> Self {
        Gradients {
            dx: Matrix::zeros(head.x.rows, head.x.cols),
            dw: Matrix::zeros(head.w.rows, head.w.cols),
            dbias: Matrix::zeros(1, head.w.rows),
        }
    }

    /// Adds one token's cotangent of the raw logits.
    fn add(&mut self, head: &Logits, n: usize, d: &[f64]) {
        for (v, &d) in d.iter().enumerate() {
            axpy(self.dx.row_mut(n), d, head.w.row(v));
            axpy(self.dw.row_mut(v), d, head.x.row(n));
            self.dbias.data[v] += d;
        }
    }

    fn write(&self, s: &mut Reference, dx: &View, dw: &Option<View>, dbias: &Option<View>) -> Result<()> {
        s.write(dx, &self.dx)?;
        s.add_opt(dw, &self.dw)?;
        s.add_opt(dbias, &self.dbias)
    }
}

/// One row of a number per token.
fn row(values: impl IntoIterator<Item = f64>) -> Matrix {
    let data: Vec<f64> = values.into_iter().collect();
    Matrix { rows: 1, cols: data.len(), data }
}

/// An optional row's value, 0 where the row is absent.
fn at(row: &Option<Matrix>, n: usize) -> f64 {
    row.as_ref().map_or(0.0, |row| row.data[n])
}
