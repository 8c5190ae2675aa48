//! Activation functions, plain and gated, with their derivatives.
//!
//! If the catalogue lets an output be an input, the kernel works in place; otherwise it copies first and then works in place, so
//! that each formula is written once.

use super::elementwise::{binary, copy_rows, unary};
use crate::kernels::{
    context::{Kernels, kernels},
    primitives::{
        element::{Element, load_row},
        math::{erf, sigmoid, tanh},
        operand::{Mat, MatMut},
    },
};
use plugin_api::{
    Result,
    backend::ops::{Activation, ActivationBackward, ActivationKind, Glu, GluBackward},
};

kernels! {
    ActivationOps:
    activation Activation [x] => activation,
    activation_backward ActivationBackward [x] => activation_backward,
    glu Glu [gate] => glu,
    glu_backward GluBackward [gate] => glu_backward,
}

/// An activation function and its derivative.
trait Function: Sync + std::marker::Copy {
    /// `f(x)`.
    fn value(self, x: f32) -> f32;
    /// `(f(x), f'(x))`.
    fn both(self, x: f32) -> (f32, f32);
}

macro_rules! functions {
    ($($Name:ident: |$x:ident| $value:expr, $both:expr;)*) => {
        $(
            #[derive(Clone, std::marker::Copy)]
            struct $Name;
            impl Function for $Name {
                #[inline(always)]
                fn value(self, $x: f32) -> f32 {
                    $value
                }
                #[inline(always)]
                fn both(self, $x: f32) -> (f32, f32) {
                    $both
                }
            }
        )*
    };
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;
/// `1 / sqrt(2 pi)`.
const INV_SQRT_2PI: f32 = 0.398_942_3;

functions! {
    Silu: |x| x * sigmoid(x), {
        let g = sigmoid(x);
        (x * g, (x * g).mul_add(1.0 - g, g))
    };
    Relu: |x| if x > 0.0 { x } else { 0.0 }, if x > 0.0 { (x, 1.0) } else { (0.0, 0.0) };
    GeluErf: |x| 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)), {
        let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
        let density = INV_SQRT_2PI * crate::kernels::primitives::math::exp_nonpositive(-0.5 * x * x);
        (x * cdf, x.mul_add(density, cdf))
    };
    GeluTanh: |x| 0.5 * x * (1.0 + tanh(SQRT_2_OVER_PI * (CUBIC * x * x).mul_add(x, x))), {
        let t = tanh(SQRT_2_OVER_PI * (CUBIC * x * x).mul_add(x, x));
        let inner = SQRT_2_OVER_PI * (3.0 * CUBIC * x).mul_add(x, 1.0);
        (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)
    };
}

/// Runs `$body` with `$f` bound to the function of `$kind`.
macro_rules! with_function {
    ($kind:expr, $op:literal, |$f:ident| $body:expr) => {
        match $kind {
            ActivationKind::SILU => {
                let $f = Silu;
                $body
            }
            ActivationKind::RELU => {
                let $f = Relu;
                $body
            }
            ActivationKind::GELU_ERF => {
                let $f = GeluErf;
                $body
            }
            ActivationKind::GELU_TANH => {
                let $f = GeluTanh;
                $body
            }
            other => return Err(other.unknown($op)),
        }
    };
}

/// Estimated picoseconds per element of an activation.
const COST: usize = 700;

/// `y = f(x)`.
pub fn activation<E: Element>(s: &mut Kernels<'_>, op: &Activation) -> Result<()> {
    let (x, y): (Mat<E>, MatMut<E>) = (s.input(&op.x)?, s.output(&op.y)?);
    let par = &s.cx.par;
    with_function!(op.kind, "activation", |f| if y.is(&x) {
        unary(
            par,
            y,
            COST,
            #[inline(always)]
            move |x| f.value(x),
        );
    } else {
        binary(
            par,
            y,
            x,
            COST,
            #[inline(always)]
            move |_, x| f.value(x),
        );
    });
    Ok(())
}

/// `dx = dy f'(x)`.
pub fn activation_backward<E: Element>(s: &mut Kernels<'_>, op: &ActivationBackward) -> Result<()> {
    let (x, dy, dx): (Mat<E>, Mat<E>, MatMut<E>) = (s.input(&op.x)?, s.input(&op.dy)?, s.output(&op.dx)?);
    let par = &s.cx.par;
    if !dx.is(&x) && !dx.is(&dy) {
        copy_rows(par, dy, dx);
    }
    with_function!(op.kind, "activation_backward", |f| if dx.is(&x) && x.ptr() == dy.ptr() {
        unary(
            par,
            dx,
            COST,
            #[inline(always)]
            move |x| x * f.both(x).1,
        );
    } else if dx.is(&x) {
        binary(
            par,
            dx,
            dy,
            COST,
            #[inline(always)]
            move |x, dy| dy * f.both(x).1,
        );
    } else {
        binary(
            par,
            dx,
            x,
            COST,
            #[inline(always)]
            move |dy, x| dy * f.both(x).1,
        );
    });
    Ok(())
}

/// `y = f(gate) up`.
pub fn glu<E: Element>(s: &mut Kernels<'_>, op: &Glu) -> Result<()> {
    let (gate, up, y): (Mat<E>, Mat<E>, MatMut<E>) = (s.input(&op.gate)?, s.input(&op.up)?, s.output(&op.y)?);
    let par = &s.cx.par;
    if !y.is(&gate) && !y.is(&up) {
        copy_rows(par, up, y);
    }
    with_function!(op.kind, "glu", |f| if y.is(&gate) && gate.ptr() == up.ptr() {
        unary(
            par,
            y,
            COST,
            #[inline(always)]
            move |x| f.value(x) * x,
        );
    } else if y.is(&gate) {
        binary(
            par,
            y,
            up,
            COST,
            #[inline(always)]
            move |gate, up| f.value(gate) * up,
        );
    } else {
        binary(
            par,
            y,
            gate,
            COST,
            #[inline(always)]
            move |up, gate| f.value(gate) * up,
        );
    });
    Ok(())
}

/// Elements that a gated unit's backward copies at a time, so that outputs may be inputs.
const BLOCK: usize = 256;

/// `dgate = dy up f'(gate)`, `dup = dy f(gate)`.
pub fn glu_backward<E: Element>(s: &mut Kernels<'_>, op: &GluBackward) -> Result<()> {
    let (gate, up, dy): (Mat<E>, Mat<E>, Mat<E>) = (s.input(&op.gate)?, s.input(&op.up)?, s.input(&op.dy)?);
    let (dgate, dup): (MatMut<E>, MatMut<E>) = (s.output(&op.dgate)?, s.output(&op.dup)?);
    let dense = [gate, up, dy, dgate.as_mat(), dup.as_mat()].iter().all(Mat::is_dense);
    let par = &s.cx.par;
    with_function!(op.kind, "glu_backward", |f| {
        par.spans(gate.rows, gate.cols, dense, COST, |at| {
            par.wide(
                #[inline(always)]
                || {
                    let (mut gates, mut ups, mut dys) = ([0.0f32; BLOCK], [0.0f32; BLOCK], [0.0f32; BLOCK]);
                    for from in (0..at.len).step_by(BLOCK) {
                        let n = BLOCK.min(at.len - from);
                        let col = at.col + from;
                        // SAFETY: checked views; spans are disjoint; inputs are copied before outputs, which may be
                        // the same elements, are borrowed.
                        unsafe {
                            load_row(&mut gates[..n], gate.span(at.row, col, n));
                            load_row(&mut ups[..n], up.span(at.row, col, n));
                            load_row(&mut dys[..n], dy.span(at.row, col, n));
                        }
                        // SAFETY: as above; the two outputs do not overlap.
                        let (dgate, dup) = unsafe { (dgate.span(at.row, col, n), dup.span(at.row, col, n)) };
                        for i in 0..n {
                            let (value, slope) = f.both(gates[i]);
                            dgate[i] = E::store(dys[i] * ups[i] * slope);
                            dup[i] = E::store(dys[i] * value);
                        }
                    }
                },
            );
        });
    });
    Ok(())
}
