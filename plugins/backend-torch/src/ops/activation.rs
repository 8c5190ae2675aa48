//! Activation functions, plain and gated, with their derivatives.

use crate::{
    TorchSession,
    fault::{Attempt, Done},
    fused::pointwise,
};
use plugin_api::backend::ops::{Activation, ActivationBackward, ActivationKind, Glu, GluBackward};
use tch::Tensor;

plugin_api::operations! {
    ActivationOps for TorchSession:
    activation Activation => forward,
    activation_backward ActivationBackward => backward,
    glu Glu => glu,
    glu_backward GluBackward => glu_backward,
}

/// A function that ATen has kernels for.
#[derive(Clone, Copy)]
enum Function {
    Gelu(&'static str),
    Silu,
    Relu,
}

impl Function {
    fn of(kind: ActivationKind, op: &str) -> Attempt<Self> {
        match kind {
            ActivationKind::GELU_TANH => Ok(Function::Gelu("tanh")),
            ActivationKind::GELU_ERF => Ok(Function::Gelu("none")),
            ActivationKind::SILU => Ok(Function::Silu),
            ActivationKind::RELU => Ok(Function::Relu),
            other => Err(other.unknown(op).into()),
        }
    }

    /// `f(x)`.
    fn value(self, x: &Tensor) -> Attempt<Tensor> {
        Ok(match self {
            Function::Gelu(approximation) => x.f_gelu(approximation)?,
            Function::Silu => x.f_silu()?,
            Function::Relu => x.f_relu()?,
        })
    }

    /// `f(x)` into `y`.
    fn value_into(self, x: &Tensor, y: &Tensor) -> Attempt {
        match self {
            Function::Gelu(approximation) => x.f_gelu_out(y, approximation).done(),
            Function::Silu => x.f_silu_out(y).done(),
            Function::Relu => x.f_clamp_min_out(y, 0).done(),
        }
    }

    /// `dy f'(x)` into `dx`.
    fn backward_into(self, x: &Tensor, dy: &Tensor, dx: &Tensor) -> Attempt {
        match self {
            Function::Gelu(approximation) => x.f_gelu_backward_grad_input(dx, dy, approximation).done(),
            Function::Silu => x.f_silu_backward_grad_input(dx, dy).done(),
            Function::Relu => x.f_threshold_backward_grad_input(dx, dy, 0).done(),
        }
    }
}

/// `y = f(x)`.
pub fn forward(s: &mut TorchSession, op: &Activation) -> Attempt {
    let function = Function::of(op.kind, "activation")?;
    if pointwise::activation(s, op)? {
        return Ok(());
    }
    function.value_into(&s.at(&op.x)?, &s.at(&op.y)?)
}

/// `dx = dy f'(x)`.
pub fn backward(s: &mut TorchSession, op: &ActivationBackward) -> Attempt {
    let function = Function::of(op.kind, "activation_backward")?;
    if pointwise::activation_backward(s, op)? {
        return Ok(());
    }
    function.backward_into(&s.at(&op.x)?, &s.at(&op.dy)?, &s.at(&op.dx)?)
}

/// `y = f(gate) up`.
pub fn glu(s: &mut TorchSession, op: &Glu) -> Attempt {
    let function = Function::of(op.kind, "glu")?;
    if pointwise::glu(s, op)? {
        return Ok(());
    }
    let value = function.value(&s.at(&op.gate)?)?;
    value.f_mul_out(&s.at(&op.y)?, &s.at(&op.up)?).done()?;
    Ok(())
}

/// `dgate = dy up f'(gate)`, `dup = dy f(gate)`.
pub fn glu_backward(s: &mut TorchSession, op: &GluBackward) -> Attempt {
    let function = Function::of(op.kind, "glu_backward")?;
    if pointwise::glu_backward(s, op)? {
        return Ok(());
    }
    let (gate, dy) = (s.at(&op.gate)?, s.at(&op.dy)?);
    // All inputs are read before anything is written, because an output may share an input's memory.
    let through = dy.f_mul(&s.at(&op.up)?)?;
    let value = function.value(&gate)?;
    value.f_mul_out(&s.at(&op.dup)?, &dy).done()?;
    function.backward_into(&gate, &through, &s.at(&op.dgate)?)
}
