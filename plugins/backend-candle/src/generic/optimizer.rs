//! The optimizer over flat buffers.

use super::context::{Generic, Outcome};
use crate::kernels::optimizer::check_segments;
use candle_core::{DType, Tensor};
use plugin_api::backend::{
    View,
    ops::{AdamW, FLAT_ALIGN, GlobalNorm},
};

plugin_api::operations! {
    OptimizerOps for Generic<'_>:
    global_norm GlobalNorm => global_norm,
    adamw AdamW => adamw,
}

/// Elements summed on the device, in f32, before the host continues in f64: few, because not every device has f64.
const CHUNK: usize = 64;

/// `(sqrt(sum x^2), whether f32 can hold it)`, scaled by the largest magnitude so that squares do not overflow.
pub fn global_norm(s: &mut Generic<'_>, op: &GlobalNorm) -> Outcome {
    let x = s.input(&op.x)?;
    let mut norm = 0.0;
    if !op.x.is_empty() {
        let flat = x.flatten_all()?;
        let largest = f64::from(flat.abs()?.max(0)?.to_scalar::<f32>()?);
        // A tensor that is all zero, or that holds a number that is not finite, is not scaled.
        let size = if largest.is_finite() && largest > 0.0 { largest } else { 1.0 };
        let square = (flat / size)?.sqr()?;
        let whole = square.elem_count() / CHUNK * CHUNK;
        let mut sums = vec![square.narrow(0, whole, square.elem_count() - whole)?.to_vec1::<f32>()?];
        if whole > 0 {
            let chunks = square.narrow(0, 0, whole)?.reshape((whole / CHUNK, CHUNK))?;
            sums.push(chunks.sum(1)?.to_vec1::<f32>()?);
        }
        norm = sums.iter().flatten().map(|sum| f64::from(*sum)).sum::<f64>().sqrt() * size;
    }
    let norm = norm as f32;
    let finite = if norm.is_finite() { 1.0 } else { 0.0 };
    let value = Tensor::from_vec(vec![norm, finite], (1, 2), s.pool.device())?;
    s.output(&op.norm, &value)
}

/// Elements of a row.
fn part(view: &View, from: usize, len: usize) -> View {
    View { offset: view.offset + from as u64, cols: len as u64, ..*view }
}

/// Steps every segment, unless the finite flag is 0.
pub fn adamw(s: &mut Generic<'_>, op: &AdamW) -> Outcome {
    let bounds = s.ints(&op.bounds)?;
    check_segments(op, &bounds)?;
    let norm = s.input(&op.norm)?.to_vec2::<f32>()?;
    let hyper = s.input(&op.hyper)?.to_vec2::<f32>()?;
    if norm[0][1] == 0.0 {
        return Ok(());
    }
    let clip = if op.clip > 0.0 { (op.clip / (f64::from(norm[0][0]) + 1e-6)).min(1.0) } else { 1.0 };
    let correction1 = 1.0 - op.beta1.powf(op.step as f64);
    let correction2 = 1.0 - op.beta2.powf(op.step as f64);
    let align = FLAT_ALIGN as usize;
    for (ends, rates) in bounds.windows(2).zip(&hyper) {
        let (from, len) = (ends[0] as usize * align, (ends[1] - ends[0]) as usize * align);
        if len == 0 {
            continue;
        }
        let (lr, decay) = (f64::from(rates[0]), f64::from(rates[1]));
        let read = |view: &View| s.input(&part(view, from, len));
        let (p, m, v, g) = (read(&op.params)?, read(&op.m)?, read(&op.v)?, read(&op.grads)?);
        let g = (g * clip)?;
        let m = (&m + ((&g - &m)? * (1.0 - op.beta1))?)?;
        let v = ((v * op.beta2)? + (g.sqr()? * (1.0 - op.beta2))?)?;
        let denominator = (v.sqrt()? * (1.0 / correction2.sqrt()))?.affine(1.0, op.eps)?;
        let p = ((p * (1.0 - lr * decay))? - ((&m / denominator)? * (lr / correction1))?)?;
        s.output(&part(&op.params, from, len), &p)?;
        s.output(&part(&op.m, from, len), &m)?;
        s.output(&part(&op.v, from, len), &v)?;
        if let Some(shadow) = &op.shadow {
            let p =
                p.to_dtype(if shadow.dtype == plugin_api::backend::DType::BF16 { DType::BF16 } else { DType::F32 })?;
            s.output(&part(shadow, from, len), &p)?;
        }
    }
    Ok(())
}
