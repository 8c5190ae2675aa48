//! The optimizer over flat buffers: the gradients' global norm, and AdamW in a single pass.

use crate::kernels::{
    context::Kernels,
    primitives::{
        element::store_row,
        operand::{Mat, MatMut},
    },
};
use half::bf16;
use plugin_api::{
    Code, Error, Result,
    backend::{
        DType,
        ops::{AdamW, FLAT_ALIGN, GlobalNorm},
    },
};
use std::sync::atomic::{AtomicU64, Ordering};

plugin_api::operations! {
    OptimizerOps for Kernels<'_>:
    global_norm GlobalNorm => global_norm,
    adamw AdamW => adamw,
}

/// Elements per task.
pub const CHUNK: usize = 16_384;
/// Lanes of the sum of squares.
const LANES: usize = 16;

/// `(sqrt(sum x^2), whether f32 can hold it)`.
pub fn global_norm(s: &mut Kernels<'_>, op: &GlobalNorm) -> Result<()> {
    let (x, norm): (Mat, MatMut) = (s.input(&op.x)?, s.output(&op.norm)?);
    let chunks = x.cols.div_ceil(CHUNK);
    s.cx.sums.resize_with(chunks.max(s.cx.sums.len()), AtomicU64::default);
    let (par, sums) = (&s.cx.par, &s.cx.sums[..chunks]);
    par.run(chunks, x.cols / 10, |chunk| {
        let from = chunk * CHUNK;
        // SAFETY: inside the checked view, and only read.
        let part = unsafe { x.span(0, from, CHUNK.min(x.cols - from)) };
        let sum = par.wide(
            #[inline(always)]
            || sum_of_squares(part),
        );
        sums[chunk].store(sum.to_bits(), Ordering::Relaxed);
    });
    let total: f64 = sums.iter().map(|sum| f64::from_bits(sum.load(Ordering::Relaxed))).sum();
    let value = total.sqrt() as f32;
    // SAFETY: a checked view of two elements, which does not overlap `x`.
    unsafe { norm.row(0) }.copy_from_slice(&[value, if value.is_finite() { 1.0 } else { 0.0 }]);
    Ok(())
}

#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f64 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0f64; LANES];
    for chunk in chunks {
        for l in 0..LANES {
            let x = f64::from(chunk[l]);
            lanes[l] = x.mul_add(x, lanes[l]);
        }
    }
    rest.iter().zip(&mut lanes).for_each(|(x, lane)| *lane += f64::from(*x) * f64::from(*x));
    lanes.iter().sum()
}

/// The scalars of one update that are the same for all segments.
#[derive(Clone, Copy)]
struct Scalars {
    clip: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    correction1: f64,
    inverse_root2: f32,
    eps: f32,
}

/// Steps every segment, unless the finite flag is 0.
pub fn adamw(s: &mut Kernels<'_>, op: &AdamW) -> Result<()> {
    let (grads, norm, hyper): (Mat, Mat, Mat) = (s.input(&op.grads)?, s.input(&op.norm)?, s.input(&op.hyper)?);
    let bounds = s.ints(&op.bounds)?;
    check_segments(op, bounds)?;
    // SAFETY: a checked view of two elements, only read.
    let norm = unsafe { norm.row(0) };
    if norm[1] == 0.0 {
        return Ok(());
    }
    let (params, m, v): (MatMut, MatMut, MatMut) = (s.output(&op.params)?, s.output(&op.m)?, s.output(&op.v)?);
    let shadow = match &op.shadow {
        Some(view) if view.dtype == DType::BF16 => Shadow::Half(s.output(view)?),
        Some(view) => Shadow::Single(s.output(view)?),
        None => Shadow::None,
    };
    let scalars = scalars(op, norm[0]);
    let (par, elements, align) = (&s.cx.par, grads.cols, FLAT_ALIGN as usize);
    par.run(elements.div_ceil(CHUNK), elements / 2, |chunk| {
        let (mut at, end) = (chunk * CHUNK, elements.min((chunk + 1) * CHUNK));
        while at < end {
            // The segment that holds `at`; empty ones end where they start.
            let segment = bounds.partition_point(|&b| b as usize * align <= at) - 1;
            let to = end.min(bounds[segment + 1] as usize * align);
            // SAFETY: chunks are disjoint, and the operands do not overlap (alias rules).
            let (p, m, v, g) = unsafe {
                (
                    params.span(0, at, to - at),
                    m.span(0, at, to - at),
                    v.span(0, at, to - at),
                    grads.span(0, at, to - at),
                )
            };
            let (lr, decay) = rates(hyper, segment);
            par.wide(
                #[inline(always)]
                || step(&scalars, lr, decay, p, m, v, g),
            );
            par.wide(
                #[inline(always)]
                // SAFETY: as above.
                || unsafe { shadow.write(at, p) },
            );
            at = to;
        }
    });
    Ok(())
}

/// Checks what the catalogue does not: the step, the length, the bounds.
///
/// # Errors
/// [`Code::INVALID_ARGUMENT`], [`Code::SHAPE`], [`Code::INDEX`].
pub fn check_segments(op: &AdamW, bounds: &[i32]) -> Result<()> {
    if op.step < 1 {
        return Err(Error::invalid(format!("adamw: step {} is not positive", op.step)));
    }
    let elements = op.params.cols;
    if !elements.is_multiple_of(FLAT_ALIGN) {
        return Err(Error::new(Code::SHAPE, format!("adamw: {elements} elements are not a multiple of {FLAT_ALIGN}")));
    }
    let blocks = (elements / FLAT_ALIGN) as usize;
    crate::check::offsets("adamw", bounds, blocks)
}

fn scalars(op: &AdamW, norm: f32) -> Scalars {
    let clip = if op.clip > 0.0 { (op.clip / (f64::from(norm) + 1e-6)).min(1.0) } else { 1.0 };
    Scalars {
        clip: clip as f32,
        one_minus_beta1: (1.0 - op.beta1) as f32,
        beta2: op.beta2 as f32,
        one_minus_beta2: (1.0 - op.beta2) as f32,
        correction1: 1.0 - op.beta1.powf(op.step as f64),
        inverse_root2: (1.0 / (1.0 - op.beta2.powf(op.step as f64)).sqrt()) as f32,
        eps: op.eps as f32,
    }
}

fn rates(hyper: Mat, segment: usize) -> (f64, f64) {
    // SAFETY: a checked view, only read; `segment` is below its rows.
    let row = unsafe { hyper.row(segment) };
    (f64::from(row[0]), f64::from(row[1]))
}

#[inline(always)]
fn step(s: &Scalars, lr: f64, decay: f64, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    let keep = (1.0 - lr * decay) as f32;
    let rate = (lr / s.correction1) as f32;
    for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
        let g = *g * s.clip;
        *m = s.one_minus_beta1.mul_add(g - *m, *m);
        *v = s.beta2.mul_add(*v, s.one_minus_beta2 * g * g);
        let denominator = v.sqrt().mul_add(s.inverse_root2, s.eps);
        *p = *p * keep - rate * *m / denominator;
    }
}

/// The output for the copy of the new parameters.
#[derive(Clone, Copy)]
enum Shadow {
    None,
    Single(MatMut),
    Half(MatMut<bf16>),
}

impl Shadow {
    /// # Safety
    /// The elements `at..at + values.len()` lie inside the view, and no other code accesses them.
    #[inline(always)]
    unsafe fn write(self, at: usize, values: &[f32]) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Shadow::None => {}
                Shadow::Single(row) => store_row(row.span(0, at, values.len()), values),
                Shadow::Half(row) => store_row(row.span(0, at, values.len()), values),
            }
        }
    }
}
