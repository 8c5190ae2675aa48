//! The optimizer over flat buffers: global norm and AdamW.

use crate::{
    TorchSession,
    fault::{Attempt, require, require_shape},
    fused::optimizer as kernels,
    shim::{self, AdamWStep},
    storage::size,
};
use plugin_api::backend::{
    DType,
    ops::{self, FLAT_ALIGN},
};
use tch::{Kind, Tensor};

plugin_api::operations! {
    OptimizerOps for TorchSession:
    global_norm GlobalNorm => global_norm,
    adamw AdamW => adamw,
}

/// `(sqrt(sum x^2), whether that is finite)`, summed in f64.
pub fn global_norm(s: &mut TorchSession, op: &ops::GlobalNorm) -> Attempt {
    if kernels::global_norm(s, op)? {
        return Ok(());
    }
    let (x, mut norm) = (s.at(&op.x)?, s.at(&op.norm)?);
    if s.on_cpu() {
        let value = shim::squares(&x)?.sqrt();
        // Finite after rounding: a norm beyond the range of f32 would be stored as infinity and used to clip.
        let finite = if op.norm.dtype == DType::F32 { (value as f32).is_finite() } else { value.is_finite() };
        return Ok(norm.f_copy_(&Tensor::f_from_slice(&[value, f64::from(u8::from(finite))])?)?);
    }
    // The cast happens on the device; nothing is copied to the host.
    let value = x.f_norm_scalaropt_dim_dtype(2, [1i64].as_slice(), true, Kind::Double)?;
    norm.f_narrow(1, 0, 1)?.f_copy_(&value)?;
    Ok(norm.f_narrow(1, 1, 1)?.f_copy_(&norm.f_narrow(1, 0, 1)?.f_isfinite()?)?)
}

/// One decoupled AdamW step; segments with the same rates go into one call.
pub fn adamw(s: &mut TorchSession, op: &ops::AdamW) -> Attempt {
    require(op.step >= 1, "adamw", || format!("step {} is not positive", op.step))?;
    require_shape(op.params.cols.is_multiple_of(FLAT_ALIGN), "adamw", || {
        format!("{} elements are not a multiple of {FLAT_ALIGN}", op.params.cols)
    })?;
    let segments = s.ranges("adamw", "bounds", &op.bounds, op.params.cols / FLAT_ALIGN)?;
    if kernels::adamw(s, op, &s.index_unchecked(&op.bounds)?)? {
        return Ok(());
    }
    // On CUDA this waits for the gradients, once per step.
    let (norm, hyper) = (s.floats(&op.norm)?, s.floats(&op.hyper)?);
    if norm[1] == 0.0 {
        return Ok(());
    }
    let clip = if op.clip > 0.0 { (op.clip / (norm[0] + 1e-6)).min(1.0) } else { 1.0 };
    let (params, grads, m, v) = (s.at(&op.params)?, s.at(&op.grads)?, s.at(&op.m)?, s.at(&op.v)?);
    let align = size(FLAT_ALIGN)?;
    let mut groups: Vec<([f64; 2], Vec<[Tensor; 4]>)> = Vec::new();
    for (blocks, rates) in segments.iter().zip(hyper.chunks_exact(2)).filter(|(blocks, _)| !blocks.is_empty()) {
        let part = |t: &Tensor| t.f_narrow(1, blocks.start * align, (blocks.end - blocks.start) * align);
        let piece = [part(&params)?, part(&grads)?, part(&m)?, part(&v)?];
        let rates = [rates[0], rates[1]];
        match groups.iter_mut().find(|(other, _)| *other == rates) {
            Some((_, pieces)) => pieces.push(piece),
            None => groups.push((rates, vec![piece])),
        }
    }
    let (beta1, beta2, eps, step) = (op.beta1, op.beta2, op.eps, op.step);
    for ([lr, decay], mut pieces) in groups {
        shim::adamw(&mut pieces, AdamWStep { beta1, beta2, eps, lr, decay, clip, step })?;
    }
    if let Some(mut shadow) = s.at_opt(&op.shadow)? {
        shadow.f_copy_(&params)?;
    }
    Ok(())
}
