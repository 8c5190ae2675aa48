//! Muon (Jordan et al. 2024): the momentum of each hidden matrix is orthogonalised before it is applied; AdamW updates all
//! other parameters.
//!
//! With momentum `m` (decay `mu = betas[0]`) and gradient `g` of a matrix of `r` rows and `c` columns:
//!
//! ```text
//! m <- m + (1 - mu) (g - m)
//! u  = (1 - mu) g + mu m                                  Nesterov momentum
//! X  = u / |u|, then 5 times  X <- a X + b (X X^T) X + c (X X^T)^2 X
//! W <- (1 - lr wd) W - lr 0.2 sqrt(max(r, c)) X
//! ```
//!
//! `a, b, c = 3.4445, -4.7750, 2.0315` (Newton-Schulz iteration of Jordan et al.): the singular values of `X` end near 1. The factor
//! `0.2 sqrt(max(r, c))` gives the update about the size of AdamW's (Liu et al. 2025, arXiv 2502.16982, equation 4), so one learning
//! rate serves both. Hidden matrices are the linear maps of the layers, each as the model stores it: GPT-2's fused projection of query,
//! key and value is one matrix.
//! Embeddings, heads, norms and biases are updated by AdamW.
//!
//! `m` is AdamW's first moment: `X` does not depend on its scale, apart from rounding. So a checkpoint has the same files for both
//! optimizers. Products run in the compute dtype.

use plugin_api::{
    abi::View,
    backend::ops::{Axpy, Cast, Copy, Fill, Linear, LinearBackwardInput, LinearBackwardWeight, Scale},
};

use super::{
    groups::Rule,
    kind::{Gradient, Optimizer, measure_into},
};
use crate::{
    device::{Buffer, Device, Tensor},
    error::Result,
    model::params::Parameter,
};

/// Coefficients of the Newton-Schulz iteration.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Its number of steps.
const STEPS: usize = 5;
/// Size of an update relative to that of an orthogonal matrix.
const SIZE: f64 = 0.2;
/// Added to the norm.
const EPSILON: f64 = 1e-7;

/// Muon for hidden matrices, AdamW for the rest.
pub struct Muon {
    device: Device,
    /// Stores all momentum, and updates all parameters except the hidden matrices.
    adamw: Box<dyn Optimizer>,
    matrices: Vec<(Parameter, Rule)>,
    momentum: f64,
    clip: f64,
    /// Norm of the latest gradient.
    norm: f64,
    scratch: Option<Scratch>,
}

/// Buffers for the largest matrix.
struct Scratch {
    /// The update, in the dtype of the weights.
    update: Buffer,
    /// The iterate and the next one, in the compute dtype.
    iterates: [Buffer; 2],
    /// `X X^T` (or `X^T X`) and its square, in the compute dtype.
    products: [Buffer; 2],
    /// `X^T X` in the dtype of the weights.
    sums: Buffer,
    norm: Tensor,
}

impl Muon {
    /// Creates the optimizer for these hidden `matrices`; `clip` is that of `adamw`. `adamw` has zero moments, keeps the momentum of
    /// all parameters, and updates all of them except the matrices.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(
        device: &Device,
        momentum: f64,
        clip: f64,
        matrices: Vec<(Parameter, Rule)>,
        adamw: Box<dyn Optimizer>,
    ) -> Result<Muon> {
        let (compute, accumulator) = (device.compute(), device.accumulator());
        let largest = matrices.iter().map(|(matrix, _)| matrix.len()).max();
        let side = matrices.iter().map(|(matrix, _)| matrix.rows.min(matrix.cols).pow(2)).max().unwrap_or(0);
        let scratch = |elements| -> Result<Scratch> {
            Ok(Scratch {
                update: device.buffer(accumulator, elements)?,
                iterates: [device.buffer(compute, elements)?, device.buffer(compute, elements)?],
                products: [device.buffer(compute, side)?, device.buffer(compute, side)?],
                sums: device.buffer(accumulator, side)?,
                norm: device.tensor_of(accumulator, 1, 2)?,
            })
        };
        Ok(Muon {
            device: device.clone(),
            adamw,
            matrices,
            momentum,
            clip,
            norm: 0.0,
            scratch: largest.map(scratch).transpose()?,
        })
    }

    /// Orthogonalises the momentum of `matrix`; the result is in the scratch buffer `update`.
    fn orthogonalise(&self, scratch: &Scratch, matrix: &Parameter, grads: &Buffer) -> Result<()> {
        let (device, rows, cols) = (&self.device, matrix.rows, matrix.cols);
        let [(_, momentum), _] = self.adamw.moments();
        // The factor by which AdamW clipped the gradient when it updated the momentum.
        let clipped = if self.clip > 0.0 { (self.clip / (self.norm + 1e-6)).min(1.0) } else { 1.0 };
        let update = scratch.update.matrix(0, rows, cols);
        device.call(&Copy { x: matrix.view(momentum), y: update })?;
        device.call(&Scale { x: update, alpha: self.momentum })?;
        device.call(&Axpy { x: matrix.view(grads), y: update, alpha: (1.0 - self.momentum) * clipped })?;
        let norm = measure_into(device, scratch.update.matrix(0, 1, rows * cols), &scratch.norm)?.norm;
        device.call(&Scale { x: update, alpha: 1.0 / (norm + EPSILON) })?;

        let [mut x, mut next] = scratch.iterates.each_ref().map(|buffer| buffer.matrix(0, rows, cols));
        self.convert(update, x)?;
        let [a, b, c] = COEFFICIENTS;
        let side = rows.min(cols);
        let [gram, square] = scratch.products.each_ref().map(|buffer| buffer.matrix(0, side, side));
        for _ in 0..STEPS {
            if rows <= cols {
                device.call(&Linear { x, w: x, bias: None, y: gram })?;
            } else {
                let sums = scratch.sums.matrix(0, side, side);
                device.call(&Fill { x: sums, value: 0.0 })?;
                device.call(&LinearBackwardWeight { x, dy: x, dw: sums, dbias: None })?;
                self.convert(sums, gram)?;
            }
            // Both matrices are symmetric, so a product with the transpose equals the product.
            device.call(&Linear { x: gram, w: gram, bias: None, y: square })?;
            device.call(&Scale { x: gram, alpha: b })?;
            device.call(&Axpy { x: square, y: gram, alpha: c })?;
            if rows <= cols {
                device.call(&LinearBackwardInput { dy: gram, w: x, dx: next, accumulate: false })?;
            } else {
                device.call(&Linear { x, w: gram, bias: None, y: next })?;
            }
            device.call(&Axpy { x, y: next, alpha: a })?;
            std::mem::swap(&mut x, &mut next);
        }
        self.convert(x, update)
    }

    /// Copies `x` to `y`, which may have another dtype.
    fn convert(&self, x: View, y: View) -> Result<()> {
        if x.dtype == y.dtype { self.device.call(&Copy { x, y }) } else { self.device.call(&Cast { x, y }) }
    }
}

impl Optimizer for Muon {
    fn measure(&mut self, grads: &Buffer) -> Result<Gradient> {
        let gradient = self.adamw.measure(grads)?;
        self.norm = gradient.norm;
        Ok(gradient)
    }

    fn update(&mut self, params: &Buffer, shadow: Option<&Buffer>, grads: &Buffer, lr: f64) -> Result<()> {
        self.adamw.update(params, shadow, grads, lr)?;
        let Some(scratch) = &self.scratch else { return Ok(()) };
        for (matrix, rule) in &self.matrices {
            let rate = lr * rule.lr_scale;
            if rule.lr_scale == 0.0 {
                continue;
            }
            self.orthogonalise(scratch, matrix, grads)?;
            let (weights, update) = (matrix.view(params), scratch.update.matrix(0, matrix.rows, matrix.cols));
            if rule.weight_decay != 0.0 {
                self.device.call(&Scale { x: weights, alpha: 1.0 - rate * rule.weight_decay })?;
            }
            let size = SIZE * (matrix.rows.max(matrix.cols) as f64).sqrt();
            self.device.call(&Axpy { x: update, y: weights, alpha: -rate * size })?;
            if let Some(shadow) = shadow {
                self.convert(weights, matrix.view(shadow))?;
            }
        }
        Ok(())
    }

    fn moments(&self) -> [(&'static str, &Buffer); 2] {
        self.adamw.moments()
    }

    fn updates(&self) -> u64 {
        self.adamw.updates()
    }

    fn continue_after(&mut self, updates: u64) {
        self.adamw.continue_after(updates);
    }
}
