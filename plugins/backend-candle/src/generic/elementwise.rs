//! Operations element by element.

use super::context::{Generic, Outcome};
use crate::check;
use candle_core::{Result, Tensor};
use plugin_api::backend::ops::{
    Activation, ActivationBackward, ActivationKind, Axpy, Cast, Copy, Fill, Glu, GluBackward, Nop, Scale,
};

plugin_api::operations! {
    ElementwiseOps for Generic<'_>:
    nop Nop => nop,
    fill Fill => fill,
    copy Copy => copy,
    cast Cast => cast,
    axpy Axpy => axpy,
    scale Scale => scale,
}

plugin_api::operations! {
    ActivationOps for Generic<'_>:
    activation Activation => activation,
    activation_backward ActivationBackward => activation_backward,
    glu Glu => glu,
    glu_backward GluBackward => glu_backward,
}

/// Nothing.
pub fn nop(_: &mut Generic<'_>, _: &Nop) -> Outcome {
    Ok(())
}

/// `x = value`.
pub fn fill(s: &mut Generic<'_>, op: &Fill) -> Outcome {
    check::float(&op.x)?;
    let device = s.pool.device();
    let x = Tensor::full(op.value as f32, (op.x.rows as usize, op.x.cols as usize), device)?;
    s.output(&op.x, &x)
}

/// `y = x`.
pub fn copy(s: &mut Generic<'_>, op: &Copy) -> Outcome {
    let x = s.floats(&op.x)?.copy()?;
    s.output(&op.y, &x)
}

/// `y = x`, rounded to nearest even.
pub fn cast(s: &mut Generic<'_>, op: &Cast) -> Outcome {
    let x = s.floats(&op.x)?.copy()?;
    s.output(&op.y, &x)
}

/// `y += alpha x`.
pub fn axpy(s: &mut Generic<'_>, op: &Axpy) -> Outcome {
    let x = s.input(&op.x)?.affine(op.alpha, 0.0)?;
    s.add(&op.y, &x)
}

/// `x *= alpha`.
pub fn scale(s: &mut Generic<'_>, op: &Scale) -> Outcome {
    let x = s.input(&op.x)?.affine(op.alpha, 0.0)?;
    s.output(&op.x, &x)
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const INV_SQRT_2PI: f64 = 0.398_942_280_401_432_7;
const CUBIC: f64 = 0.044_715;

/// `1 / (1 + e^-x)`.
fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// `(f(x), f'(x))`.
fn both(kind: ActivationKind, op: &str, x: &Tensor) -> Outcome<(Tensor, Tensor)> {
    Ok(match kind {
        ActivationKind::SILU => {
            let g = sigmoid(x)?;
            let value = (x * &g)?;
            let slope = (&g + (&value * g.affine(-1.0, 1.0)?)?)?;
            (value, slope)
        }
        ActivationKind::RELU => {
            let slope = x.gt(&x.zeros_like()?)?.to_dtype(x.dtype())?;
            (x.relu()?, slope)
        }
        ActivationKind::GELU_ERF => {
            let cdf = (x * std::f64::consts::FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)?;
            let density = (x.sqr()?.affine(-0.5, 0.0)?.exp()? * INV_SQRT_2PI)?;
            ((x * &cdf)?, (&cdf + (x * density)?)?)
        }
        ActivationKind::GELU_TANH => {
            let square = x.sqr()?;
            let inner = (x * square.affine(CUBIC, 1.0)?)?;
            let t = (inner * SQRT_2_OVER_PI)?.tanh()?;
            let half = t.affine(0.5, 0.5)?;
            let bend = (x * t.sqr()?.affine(-0.5, 0.5)?)?;
            let slope = (bend * square.affine(3.0 * CUBIC * SQRT_2_OVER_PI, SQRT_2_OVER_PI)?)?;
            ((x * &half)?, (half + slope)?)
        }
        other => return Err(other.unknown(op).into()),
    })
}

/// `y = f(x)`.
pub fn activation(s: &mut Generic<'_>, op: &Activation) -> Outcome {
    let (value, _) = both(op.kind, "activation", &s.input(&op.x)?)?;
    s.output(&op.y, &value)
}

/// `dx = dy f'(x)`.
pub fn activation_backward(s: &mut Generic<'_>, op: &ActivationBackward) -> Outcome {
    let (_, slope) = both(op.kind, "activation_backward", &s.input(&op.x)?)?;
    let dx = (s.input(&op.dy)? * slope)?;
    s.output(&op.dx, &dx)
}

/// `y = f(gate) up`.
pub fn glu(s: &mut Generic<'_>, op: &Glu) -> Outcome {
    let (value, _) = both(op.kind, "glu", &s.input(&op.gate)?)?;
    let y = (value * s.input(&op.up)?)?;
    s.output(&op.y, &y)
}

/// `dgate = dy up f'(gate)`, `dup = dy f(gate)`.
pub fn glu_backward(s: &mut Generic<'_>, op: &GluBackward) -> Outcome {
    let (value, slope) = both(op.kind, "glu_backward", &s.input(&op.gate)?)?;
    let dy = s.input(&op.dy)?;
    let (dgate, dup) = (((&dy * s.input(&op.up)?)? * slope)?, (&dy * value)?);
    s.output(&op.dgate, &dgate)?;
    s.output(&op.dup, &dup)
}
