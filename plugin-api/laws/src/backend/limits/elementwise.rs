//! Activations, plain and gated, and the optimizer.

use super::{
    bounded::{Bounded, attribute, depth, exact, sum},
    operands::{Formulas, Matrix, Operands, Outputs},
};
use plugin_api::{
    Result,
    backend::ops::{ActivationKind, FLAT_ALIGN},
};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, PI};

/// The operations of this file.
pub const FORMULAS: Formulas = &[
    ("activation", activation),
    ("activation_backward", activation_backward),
    ("glu", glu),
    ("glu_backward", glu_backward),
    ("global_norm", global_norm),
    ("adamw", adamw),
];

const CUBIC: f64 = 0.044715;

/// `tanh(sqrt(2/pi) (x + 0.044715 x^3))`.
fn gelu_tanh(x: Bounded) -> Bounded {
    (attribute(FRAC_2_PI.sqrt()) * (x + attribute(CUBIC) * x * x * x)).tanh()
}

/// `f(x)`.
fn value(kind: ActivationKind, x: Bounded) -> Bounded {
    let half = exact(0.5) * x;
    match kind {
        ActivationKind::GELU_TANH => half * sum([exact(1.0), gelu_tanh(x)]),
        ActivationKind::GELU_ERF => half * (x * attribute(FRAC_1_SQRT_2)).one_plus_erf(),
        ActivationKind::RELU => exact(x.value.max(0.0)),
        _ => x * x.sigmoid(),
    }
}

/// `f'(x)`.
fn slope(kind: ActivationKind, x: Bounded) -> Bounded {
    let (one, half) = (exact(1.0), exact(0.5));
    match kind {
        ActivationKind::GELU_TANH => {
            let t = gelu_tanh(x);
            let inner = attribute(FRAC_2_PI.sqrt()) * (one + attribute(3.0 * CUBIC) * x * x);
            sum([half * sum([one, t]), half * x * sum([one, -(t * t)]) * inner])
        }
        ActivationKind::GELU_ERF => {
            let density = (exact(-0.5) * x * x).exp() * attribute((2.0 * PI).sqrt().recip());
            sum([half * (x * attribute(FRAC_1_SQRT_2)).one_plus_erf(), x * density])
        }
        ActivationKind::RELU => exact(f64::from(u8::from(x.value > 0.0))),
        _ => {
            let s = x.sigmoid();
            s * sum([one, x * sum([one, -s])])
        }
    }
}

fn kind(o: &Operands<'_>) -> Result<ActivationKind> {
    Ok(ActivationKind(o.integer("kind")?))
}

/// `y = f(x)`.
fn activation(o: &Operands<'_>) -> Result<Outputs> {
    let kind = kind(o)?;
    Ok(vec![("y", o.matrix("x")?.map(|x| value(kind, x)))])
}

/// `dx = dy f'(x)`.
fn activation_backward(o: &Operands<'_>) -> Result<Outputs> {
    let kind = kind(o)?;
    Ok(vec![("dx", o.matrix("x")?.zip(&o.matrix("dy")?, |x, dy| dy * slope(kind, x)))])
}

/// `y = f(gate) up`, where `f(gate)` may be stored.
fn glu(o: &Operands<'_>) -> Result<Outputs> {
    let kind = kind(o)?;
    Ok(vec![("y", o.matrix("gate")?.zip(&o.matrix("up")?, |gate, up| value(kind, gate).stored() * up))])
}

/// `dgate = dy up f'(gate)`, `dup = dy f(gate)`, where `dy up` and `f(gate)` may be stored.
fn glu_backward(o: &Operands<'_>) -> Result<Outputs> {
    let (kind, gate, dy) = (kind(o)?, o.matrix("gate")?, o.matrix("dy")?);
    let through = dy.zip(&o.matrix("up")?, |dy, up| (dy * up).stored());
    let dgate = through.zip(&gate, |through, gate| through * slope(kind, gate));
    let dup = dy.zip(&gate, |dy, gate| dy * value(kind, gate).stored());
    Ok(vec![("dgate", dgate), ("dup", dup)])
}

/// `(sqrt(sum x^2), finite flag)`. The sum is kept in f64; the root halves its relative error.
fn global_norm(o: &Operands<'_>) -> Result<Outputs> {
    let x = o.matrix("x")?;
    let norm = x.data.iter().map(|x| x.value * x.value).sum::<f64>().sqrt();
    let roundings = 1.0 + o.of_f64(0.5 * depth(x.data.len()) + 2.0);
    Ok(vec![(
        "norm",
        Matrix::of_row(vec![exact(norm).rounded(roundings), exact(f64::from(u8::from(norm.is_finite())))]),
    )])
}

/// One decoupled AdamW step per segment.
fn adamw(o: &Operands<'_>) -> Result<Outputs> {
    let (grads, norm, hyper) = (o.matrix("grads")?, o.matrix("norm")?, o.matrix("hyper")?);
    let (mut params, mut m, mut v) = (o.matrix("params")?, o.matrix("m")?, o.matrix("v")?);
    if norm.data[1].value == 0.0 {
        return Ok(vec![("params", params), ("m", m), ("v", v)]);
    }
    let clip = match o.number("clip")? {
        clip if clip > 0.0 && clip < norm.data[0].value + 1e-6 => attribute(clip) / (norm.data[0] + attribute(1e-6)),
        _ => exact(1.0),
    };
    let (beta1, beta2, eps) = (o.number("beta1")?, o.number("beta2")?, o.factor("eps")?);
    let step = o.integer("step")? as f64;
    // The corrections and the decay factors of the moments belong to the step, not to an element: computed once, in f64.
    let correction1 = attribute(1.0 - beta1.powf(step));
    let correction2 = attribute((1.0 - beta2.powf(step)).sqrt());
    let moved = |beta: f64, old: Bounded, new: Bounded| sum([attribute(beta) * old, attribute(1.0 - beta) * new]);
    for (segment, blocks) in o.ranges("bounds")?.into_iter().enumerate() {
        let (lr, decay) = (hyper.row(segment)[0], hyper.row(segment)[1]);
        let align = FLAT_ALIGN as usize;
        for i in blocks.start * align..blocks.end * align {
            let g = grads.data[i] * clip;
            m.data[i] = moved(beta1, m.data[i], g);
            v.data[i] = moved(beta2, v.data[i], g * g);
            let denominator = v.data[i].sqrt() / correction2 + eps;
            // A kernel may fold the correction into the rate.
            let by = lr / correction1 * m.data[i] / denominator.rounded(1.0);
            params.data[i] = sum([params.data[i] * (exact(1.0) - lr * decay), -by]);
        }
    }
    Ok(vec![("shadow", params.clone()), ("params", params), ("m", m), ("v", v)])
}
