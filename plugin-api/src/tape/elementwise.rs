//! Functions of one or two numbers and their derivatives. `operators` maps them over arrays.

use super::kind::OpKind;
use super::stable::{log_sigmoid, log1mexp, sigmoid, softplus};

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Function {
    Neg,
    Exp,
    Log,
    Sqrt,
    Square,
    Powi(i32),
    Abs,
    Sigmoid,
    LogSigmoid,
    Log1mExp,
    Softplus,
    Tanh,
    Relu,
    Clamp { low: f64, high: f64 },
}

impl Function {
    pub(super) fn kind(self) -> OpKind {
        match self {
            Function::Neg => OpKind::Neg,
            Function::Exp => OpKind::Exp,
            Function::Log => OpKind::Log,
            Function::Sqrt => OpKind::Sqrt,
            Function::Square => OpKind::Square,
            Function::Powi(_) => OpKind::Powi,
            Function::Abs => OpKind::Abs,
            Function::Sigmoid => OpKind::Sigmoid,
            Function::LogSigmoid => OpKind::LogSigmoid,
            Function::Log1mExp => OpKind::Log1mExp,
            Function::Softplus => OpKind::Softplus,
            Function::Tanh => OpKind::Tanh,
            Function::Relu => OpKind::Relu,
            Function::Clamp { .. } => OpKind::Clamp,
        }
    }

    pub(super) fn value(self, x: f64) -> f64 {
        match self {
            Function::Neg => -x,
            Function::Exp => x.exp(),
            Function::Log => x.ln(),
            Function::Sqrt => x.sqrt(),
            Function::Square => x * x,
            Function::Powi(n) => x.powi(n),
            Function::Abs => x.abs(),
            Function::Sigmoid => sigmoid(x),
            Function::LogSigmoid => log_sigmoid(x),
            Function::Log1mExp => log1mexp(x),
            Function::Softplus => softplus(x),
            Function::Tanh => x.tanh(),
            // Written with `<`, so that NaN stays NaN; f64::max would drop it.
            Function::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Function::Clamp { low, high } => x.clamp(low, high),
        }
    }

    /// The derivative at `x`, for a function value of `y`.
    pub(super) fn derivative(self, x: f64, y: f64) -> f64 {
        match self {
            Function::Neg => -1.0,
            Function::Exp => y,
            Function::Log => 1.0 / x,
            Function::Sqrt => 0.5 / y,
            Function::Square => 2.0 * x,
            Function::Powi(0) => 0.0,
            Function::Powi(n) => f64::from(n) * x.powi(n.saturating_sub(1)),
            Function::Abs => {
                if x == 0.0 {
                    0.0
                } else {
                    x.signum()
                }
            }
            // Not y (1 - y), which is 0 once y rounds to 1.
            Function::Sigmoid => y * sigmoid(-x),
            Function::LogSigmoid => sigmoid(-x),
            // -exp(x) / (1 - exp(x)), with the small difference computed by expm1.
            Function::Log1mExp => -1.0 / (-x).exp_m1(),
            Function::Softplus => sigmoid(x),
            // 1 / cosh^2 rather than 1 - y^2, for the same reason as in sigmoid.
            Function::Tanh => x.cosh().powi(2).recip(),
            Function::Relu => {
                if x.is_nan() {
                    x
                } else {
                    f64::from(x > 0.0)
                }
            }
            Function::Clamp { low, high } => {
                if x.is_nan() {
                    x
                } else {
                    f64::from(low <= x && x <= high)
                }
            }
        }
    }

    /// Whether a derivative of 0 means "not selected", which blocks even an infinite cotangent.
    pub(super) fn selects(self) -> bool {
        matches!(self, Function::Relu | Function::Clamp { .. })
    }
}

/// A function of two numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pairwise {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
}

impl Pairwise {
    pub(super) fn kind(self) -> OpKind {
        match self {
            Pairwise::Add => OpKind::Add,
            Pairwise::Sub => OpKind::Sub,
            Pairwise::Mul => OpKind::Mul,
            Pairwise::Div => OpKind::Div,
            Pairwise::Max => OpKind::Max,
            Pairwise::Min => OpKind::Min,
        }
    }

    pub(super) fn value(self, a: f64, b: f64) -> f64 {
        match self {
            Pairwise::Add => a + b,
            Pairwise::Sub => a - b,
            Pairwise::Mul => a * b,
            Pairwise::Div => a / b,
            // The sum is NaN if either operand is NaN.
            Pairwise::Max | Pairwise::Min if a.is_nan() || b.is_nan() => a + b,
            Pairwise::Max => a.max(b),
            Pairwise::Min => a.min(b),
        }
    }

    /// The derivatives by `a` and by `b`.
    pub(super) fn derivatives(self, a: f64, b: f64) -> (f64, f64) {
        match self {
            Pairwise::Add => (1.0, 1.0),
            Pairwise::Sub => (1.0, -1.0),
            Pairwise::Mul => (b, a),
            Pairwise::Div => (1.0 / b, -a / b / b),
            Pairwise::Max => winner(a, b),
            Pairwise::Min => winner(b, a),
        }
    }

    /// As [`Function::selects`].
    pub(super) fn selects(self) -> bool {
        matches!(self, Pairwise::Max | Pairwise::Min)
    }
}

/// Derivatives of a maximum by its two operands: 1 for the greater, half for each of two equal ones.
fn winner(a: f64, b: f64) -> (f64, f64) {
    match a.partial_cmp(&b) {
        Some(std::cmp::Ordering::Greater) => (1.0, 0.0),
        Some(std::cmp::Ordering::Less) => (0.0, 1.0),
        Some(std::cmp::Ordering::Equal) => (0.5, 0.5),
        None => (f64::NAN, f64::NAN),
    }
}
