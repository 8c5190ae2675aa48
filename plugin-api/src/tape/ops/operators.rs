//! Elementwise arithmetic on variables: operators, functions of one number, and of two with scalar broadcast.

use std::ops::{Add, Div, Mul, Neg, Sub};

use ndarray::ArrayD;

use crate::tape::elementwise::{Function, Pairwise};
use crate::tape::error::TapeError;
use crate::tape::graph::{Rule, State, Tape, Var, array};
use crate::tape::kind::OpKind;

/// The second operand of an elementwise function: a variable or a plain number.
#[derive(Debug, Clone, Copy)]
pub enum Operand<'t> {
    /// A variable.
    Var(Var<'t>),
    /// A constant scalar.
    Number(f64),
}

impl<'t> From<Var<'t>> for Operand<'t> {
    fn from(var: Var<'t>) -> Self {
        Operand::Var(var)
    }
}

impl From<f64> for Operand<'_> {
    fn from(number: f64) -> Self {
        Operand::Number(number)
    }
}

impl<'t> Operand<'t> {
    pub(in crate::tape) fn on(self, tape: &'t Tape) -> Var<'t> {
        match self {
            Operand::Var(var) => var,
            Operand::Number(number) => tape.constant(number),
        }
    }
}

impl<'t> Var<'t> {
    /// `exp(x)`. Clamp a log-ratio before computing its exponential: above 709 it is infinite.
    #[must_use]
    pub fn exp(self) -> Var<'t> {
        self.map(Function::Exp)
    }

    /// The natural logarithm.
    #[must_use]
    pub fn log(self) -> Var<'t> {
        self.map(Function::Log)
    }

    /// The square root; its derivative at 0 is infinite.
    #[must_use]
    pub fn sqrt(self) -> Var<'t> {
        self.map(Function::Sqrt)
    }

    /// `x * x`.
    #[must_use]
    pub fn square(self) -> Var<'t> {
        self.map(Function::Square)
    }

    /// An integer power.
    #[must_use]
    pub fn powi(self, exponent: i32) -> Var<'t> {
        self.map(Function::Powi(exponent))
    }

    /// The absolute value; derivative 0 at 0.
    #[must_use]
    pub fn abs(self) -> Var<'t> {
        self.map(Function::Abs)
    }

    /// `1 / (1 + exp(-x))`.
    #[must_use]
    pub fn sigmoid(self) -> Var<'t> {
        self.map(Function::Sigmoid)
    }

    /// `log(sigmoid(x))`, stable for large `|x|`; see [`stable::log_sigmoid`](crate::tape::stable::log_sigmoid).
    #[must_use]
    pub fn log_sigmoid(self) -> Var<'t> {
        self.map(Function::LogSigmoid)
    }

    /// `log(1 - exp(x))` for negative `x`, stable near 0 and far from it; see [`stable::log1mexp`](crate::tape::stable::log1mexp).
    #[must_use]
    pub fn log1mexp(self) -> Var<'t> {
        self.map(Function::Log1mExp)
    }

    /// `log(1 + exp(x))`, stable; see [`stable::softplus`](crate::tape::stable::softplus).
    #[must_use]
    pub fn softplus(self) -> Var<'t> {
        self.map(Function::Softplus)
    }

    /// The hyperbolic tangent.
    #[must_use]
    pub fn tanh(self) -> Var<'t> {
        self.map(Function::Tanh)
    }

    /// `max(x, 0)`; derivative 0 at 0 (`x.max(0.0)` has derivative 1/2 there).
    #[must_use]
    pub fn relu(self) -> Var<'t> {
        self.map(Function::Relu)
    }

    /// Clamps to `low..=high`; derivative 1 inside and at the bounds, 0 outside. A bound may be infinite. Bounds in the wrong
    /// order are an error.
    #[must_use]
    pub fn clamp(self, low: f64, high: f64) -> Var<'t> {
        if low <= high {
            return self.map(Function::Clamp { low, high });
        }
        self.tape.record(OpKind::Clamp, &[self], |_| Err(TapeError::Bounds { op: OpKind::Clamp, low, high }))
    }

    /// The greater of the two; two equal ones get half of the gradient each.
    #[must_use]
    pub fn max(self, other: impl Into<Operand<'t>>) -> Var<'t> {
        self.pairwise(Pairwise::Max, other.into().on(self.tape))
    }

    /// The smaller of the two; two equal ones get half of the gradient each.
    #[must_use]
    pub fn min(self, other: impl Into<Operand<'t>>) -> Var<'t> {
        self.pairwise(Pairwise::Min, other.into().on(self.tape))
    }

    fn map(self, function: Function) -> Var<'t> {
        self.tape.record(function.kind(), &[self], |state| {
            let value = state.value(self).mapv(|x| function.value(x));
            Ok((value, Rule::Map { function, x: self.index }))
        })
    }

    fn pairwise(self, function: Pairwise, other: Var<'t>) -> Var<'t> {
        let op = function.kind();
        self.tape.record(op, &[self, other], |state| {
            let value = elementwise(op, state, self, other, |a, b| function.value(a, b))?;
            Ok((value, Rule::Pairwise { function, a: self.index, b: other.index }))
        })
    }
}

/// `function` of two operands, element by element, with scalar broadcast.
pub(in crate::tape) fn elementwise(
    op: OpKind,
    state: &State,
    left: Var<'_>,
    right: Var<'_>,
    function: impl Fn(f64, f64) -> f64,
) -> Result<ArrayD<f64>, TapeError> {
    let shapes = (state.value(left).shape(), state.value(right).shape());
    let shape = broadcast(op, shapes.0, shapes.1)?;
    let (a, b) = (state.flat(left), state.flat(right));
    let value = match (shapes.0.is_empty(), shapes.1.is_empty()) {
        (true, false) => b.iter().map(|b| function(a[0], *b)).collect(),
        (false, true) => a.iter().map(|a| function(*a, b[0])).collect(),
        _ => a.iter().zip(b).map(|(a, b)| function(*a, *b)).collect(),
    };
    Ok(array(shape, value))
}

/// The common shape of two operands: equal shapes, or a scalar with any shape.
pub(in crate::tape) fn broadcast<'s>(
    op: OpKind,
    left: &'s [usize],
    right: &'s [usize],
) -> Result<&'s [usize], TapeError> {
    match (left, right) {
        ([], shape) | (shape, []) => Ok(shape),
        _ if left == right => Ok(left),
        _ => Err(TapeError::Shape { op, left: left.to_vec(), right: right.to_vec() }),
    }
}

impl<'t> Neg for Var<'t> {
    type Output = Var<'t>;

    fn neg(self) -> Var<'t> {
        self.map(Function::Neg)
    }
}

macro_rules! operators {
    ($($operator:ident $method:ident)*) => {$(
        impl<'t> $operator for Var<'t> {
            type Output = Var<'t>;

            fn $method(self, other: Var<'t>) -> Var<'t> {
                self.pairwise(Pairwise::$operator, other)
            }
        }

        impl<'t> $operator<f64> for Var<'t> {
            type Output = Var<'t>;

            fn $method(self, other: f64) -> Var<'t> {
                self.pairwise(Pairwise::$operator, self.tape.constant(other))
            }
        }

        impl<'t> $operator<Var<'t>> for f64 {
            type Output = Var<'t>;

            fn $method(self, other: Var<'t>) -> Var<'t> {
                other.tape.constant(self).pairwise(Pairwise::$operator, other)
            }
        }
    )*};
}
operators!(Add add Sub sub Mul mul Div div);
