//! Activation functions, plain and gated, with their derivatives.

use crate::{Reference, matrix::Matrix};
use plugin_api::{
    Result,
    backend::ops::{Activation, ActivationBackward, ActivationKind, Glu, GluBackward},
};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, PI};

plugin_api::operations! {
    ActivationOps for Reference:
    activation Activation => forward,
    activation_backward ActivationBackward => backward,
    glu Glu => glu,
    glu_backward GluBackward => glu_backward,
}

const CUBIC: f64 = 0.044715;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `f(x)`.
fn value(kind: ActivationKind, x: f64) -> f64 {
    match kind {
        ActivationKind::GELU_TANH => 0.5 * x * (1.0 + (FRAC_2_PI.sqrt() * (x + CUBIC * x.powi(3))).tanh()),
        // 1 + erf(x) is erfc(-x), which keeps its digits where erf is close to -1.
        ActivationKind::GELU_ERF => 0.5 * x * libm::erfc(-x * FRAC_1_SQRT_2),
        ActivationKind::RELU => x.max(0.0),
        _ => x * sigmoid(x),
    }
}

/// `f'(x)`.
fn slope(kind: ActivationKind, x: f64) -> f64 {
    match kind {
        ActivationKind::GELU_TANH => {
            let t = (FRAC_2_PI.sqrt() * (x + CUBIC * x.powi(3))).tanh();
            let inner = FRAC_2_PI.sqrt() * (1.0 + 3.0 * CUBIC * x * x);
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
        }
        ActivationKind::GELU_ERF => 0.5 * libm::erfc(-x * FRAC_1_SQRT_2) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt(),
        ActivationKind::RELU => f64::from(u8::from(x > 0.0)),
        _ => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
    }
}

fn known(kind: ActivationKind, op: &str) -> Result<ActivationKind> {
    match ActivationKind::ALL.iter().any(|(known, _)| *known == kind) {
        true => Ok(kind),
        false => Err(kind.unknown(op)),
    }
}

/// `f(a, b)` element by element.
fn zip(a: &Matrix, b: &Matrix, f: impl Fn(f64, f64) -> f64) -> Matrix {
    let data = a.data.iter().zip(&b.data).map(|(&a, &b)| f(a, b)).collect();
    Matrix { rows: a.rows, cols: a.cols, data }
}

/// `y = f(x)`.
pub fn forward(s: &mut Reference, op: &Activation) -> Result<()> {
    let kind = known(op.kind, "activation")?;
    let mut x = s.read(&op.x)?;
    x.data.iter_mut().for_each(|x| *x = value(kind, *x));
    s.write(&op.y, &x)
}

/// `dx = dy f'(x)`.
pub fn backward(s: &mut Reference, op: &ActivationBackward) -> Result<()> {
    let kind = known(op.kind, "activation_backward")?;
    let dx = zip(&s.read(&op.x)?, &s.read(&op.dy)?, |x, dy| dy * slope(kind, x));
    s.write(&op.dx, &dx)
}

/// `y = f(gate) up`.
pub fn glu(s: &mut Reference, op: &Glu) -> Result<()> {
    let kind = known(op.kind, "glu")?;
    let y = zip(&s.read(&op.gate)?, &s.read(&op.up)?, |gate, up| value(kind, gate) * up);
    s.write(&op.y, &y)
}

/// `dgate = dy up f'(gate)`, `dup = dy f(gate)`.
pub fn glu_backward(s: &mut Reference, op: &GluBackward) -> Result<()> {
    let kind = known(op.kind, "glu_backward")?;
    let (gate, up, dy) = (s.read(&op.gate)?, s.read(&op.up)?, s.read(&op.dy)?);
    let dup = zip(&gate, &dy, |gate, dy| dy * value(kind, gate));
    let dgate = zip(&zip(&gate, &dy, |gate, dy| dy * slope(kind, gate)), &up, |d, up| d * up);
    s.write(&op.dgate, &dgate)?;
    s.write(&op.dup, &dup)
}
