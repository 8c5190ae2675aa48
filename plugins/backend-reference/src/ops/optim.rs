//! The optimizer over flat buffers: global norm and AdamW.

use crate::{
    Reference,
    matrix::Matrix,
    session::{require, require_shape},
};
use plugin_api::{
    Result,
    backend::{
        DType,
        ops::{self, FLAT_ALIGN},
    },
};

plugin_api::operations! {
    OptimizerOps for Reference:
    global_norm GlobalNorm => global_norm,
    adamw AdamW => adamw,
}

/// `(sqrt(sum x^2), whether that is finite)`.
pub fn global_norm(s: &mut Reference, op: &ops::GlobalNorm) -> Result<()> {
    let norm = s.read(&op.x)?.data.iter().map(|x| x * x).sum::<f64>().sqrt();
    // Finite after rounding: a norm beyond the range of f32 would be stored as infinity and used to clip.
    let finite = if op.norm.dtype == DType::F32 { (norm as f32).is_finite() } else { norm.is_finite() };
    s.write(&op.norm, &Matrix { rows: 1, cols: 2, data: vec![norm, f64::from(u8::from(finite))] })
}

/// One decoupled AdamW step per segment.
pub fn adamw(s: &mut Reference, op: &ops::AdamW) -> Result<()> {
    let elements = op.params.cols as usize;
    let align = FLAT_ALIGN as usize;
    require(op.step >= 1, "adamw", || format!("step {} is not positive", op.step))?;
    require_shape(elements.is_multiple_of(align), "adamw", || {
        format!("{elements} elements are not a multiple of {align}")
    })?;
    let segments = s.ranges("adamw", "bounds", &op.bounds, elements / align)?;
    let (grads, norm, hyper) = (s.read(&op.grads)?, s.read(&op.norm)?, s.read(&op.hyper)?);
    let (mut params, mut m, mut v) = (s.read(&op.params)?, s.read(&op.m)?, s.read(&op.v)?);
    if norm.data[1] == 0.0 {
        return Ok(());
    }
    let clip = if op.clip > 0.0 { (op.clip / (norm.data[0] + 1e-6)).min(1.0) } else { 1.0 };
    let correction1 = 1.0 - op.beta1.powf(op.step as f64);
    let correction2 = 1.0 - op.beta2.powf(op.step as f64);
    for (segment, blocks) in segments.iter().enumerate() {
        let (lr, decay) = (hyper.row(segment)[0], hyper.row(segment)[1]);
        for i in blocks.start * align..blocks.end * align {
            let g = grads.data[i] * clip;
            params.data[i] *= 1.0 - lr * decay;
            m.data[i] += (1.0 - op.beta1) * (g - m.data[i]);
            v.data[i] = op.beta2 * v.data[i] + (1.0 - op.beta2) * g * g;
            let denominator = v.data[i].sqrt() / correction2.sqrt() + op.eps;
            params.data[i] -= lr / correction1 * m.data[i] / denominator;
        }
    }
    s.write(&op.params, &params)?;
    s.write(&op.m, &m)?;
    s.write(&op.v, &v)?;
    s.write_opt(&op.shadow, &params)
}
