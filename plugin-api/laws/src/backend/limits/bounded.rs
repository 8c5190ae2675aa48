//! A number with a bound on the rounding error of every correct way to compute it.
//!
//! This is running error analysis (Wilkinson 1963; Higham, Accuracy and Stability of Numerical Algorithms, section 3.3): each
//! operation adds its own rounding to the errors of its operands, to first order. A sum keeps the absolute values of its terms, so
//! that a sum that cancels keeps the error of the cancelled terms.
//!
//! Errors are counted in units of roundoff of two types: the compute dtype, in which values are stored between stages,
//! and its accumulator, in which they are added up (f32 for bf16; the same type for f32 and f64).

use std::ops::{Add, Div, Mul, Neg, Sub};

/// Roundings allowed for an elementary function: four units in the last place, as vector libraries promise.
const FUNCTION: f64 = 8.0;

/// A value, and the allowed distance of a correct kernel's value from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounded {
    /// The value in f64.
    pub value: f64,
    /// The error in units of the compute dtype's roundoff.
    pub stored: f64,
    /// The error in units of the accumulator's roundoff.
    pub summed: f64,
}

/// A number that every kernel has exactly: an element of an operand, as stored.
pub fn exact(value: f64) -> Bounded {
    Bounded { value, ..Bounded::default() }
}

/// An attribute: f64 at the ABI, which a kernel may round to its own type.
pub fn attribute(value: f64) -> Bounded {
    let fits = f64::from(value as f32) == value;
    if fits { exact(value) } else { exact(value).rounded(1.0) }
}

impl Bounded {
    /// The same number after `count` more roundings in the accumulator.
    #[must_use]
    pub fn rounded(self, count: f64) -> Bounded {
        Bounded { summed: self.summed + count * self.value.abs(), ..self }
    }

    /// The same number after being stored in the compute dtype, as a kernel may do between stages.
    #[must_use]
    pub fn stored(self) -> Bounded {
        Bounded { stored: self.stored + self.value.abs(), ..self }
    }

    /// `f(self)`, from the value and the derivative of `f` there, with the function's own error relative to `size`.
    fn function(self, value: f64, slope: f64, size: f64) -> Bounded {
        let slope = slope.abs();
        Bounded { value, stored: slope * self.stored, summed: slope * self.summed + FUNCTION * size.abs() }
    }

    /// `e^x`. A kernel may compute it as a power of 2 of a rounded product, so the error grows with `x`.
    pub fn exp(self) -> Bounded {
        let value = self.value.exp();
        let grown = Bounded { summed: self.summed + self.value.abs(), ..self };
        grown.function(value, value, value)
    }

    /// The natural logarithm.
    pub fn ln(self) -> Bounded {
        let value = self.value.ln();
        self.function(value, self.value.recip(), value)
    }

    /// The hyperbolic tangent.
    pub fn tanh(self) -> Bounded {
        let value = self.value.tanh();
        self.function(value, 1.0 - value * value, value)
    }

    /// `1 + erf(x)`; the error is that of adding the two terms, which cancel where `x` is far below 0.
    pub fn one_plus_erf(self) -> Bounded {
        let slope = std::f64::consts::FRAC_2_SQRT_PI * (-self.value * self.value).exp();
        let value = libm::erfc(-self.value);
        self.function(value, slope, 1.0 + (value - 1.0).abs())
    }

    /// The square root; of 0 it is 0.
    pub fn sqrt(self) -> Bounded {
        let value = self.value.sqrt();
        if value == 0.0 { Bounded { value, ..self } } else { self.function(value, 0.5 / value, 0.25 * value) }
    }

    /// The logistic function, whose exponential has the error of [`Bounded::exp`].
    pub fn sigmoid(self) -> Bounded {
        let small = (-self.value.abs()).exp();
        let far = small / (1.0 + small);
        let value = if self.value < 0.0 { far } else { 1.0 - far };
        let grown = Bounded { summed: self.summed + self.value.abs(), ..self };
        grown.function(value, value * (1.0 - value), value)
    }
}

impl Add for Bounded {
    type Output = Bounded;

    fn add(self, other: Bounded) -> Bounded {
        let sum = Bounded {
            value: self.value + other.value,
            stored: self.stored + other.stored,
            summed: self.summed + other.summed,
        };
        // Adding 0 is exact.
        if self.value == 0.0 || other.value == 0.0 { sum } else { sum.rounded(1.0) }
    }
}

impl Neg for Bounded {
    type Output = Bounded;

    fn neg(self) -> Bounded {
        Bounded { value: -self.value, ..self }
    }
}

impl Sub for Bounded {
    type Output = Bounded;

    fn sub(self, other: Bounded) -> Bounded {
        self + -other
    }
}

impl Mul for Bounded {
    type Output = Bounded;

    fn mul(self, other: Bounded) -> Bounded {
        let (a, b) = (self.value.abs(), other.value.abs());
        let product = Bounded {
            value: self.value * other.value,
            stored: a * other.stored + b * self.stored,
            summed: a * other.summed + b * self.summed,
        };
        // Multiplying by 1 is exact.
        if a == 1.0 || b == 1.0 { product } else { product.rounded(1.0) }
    }
}

impl Div for Bounded {
    type Output = Bounded;

    fn div(self, other: Bounded) -> Bounded {
        let (value, b) = (self.value / other.value, other.value.abs());
        let share = |own: f64, others: f64| (own + value.abs() * others) / b;
        let quotient =
            Bounded { value, stored: share(self.stored, other.stored), summed: share(self.summed, other.summed) };
        if b == 1.0 { quotient } else { quotient.rounded(1.0) }
    }
}

/// A sum that kernels may add up in any order, in the accumulator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    sum: Bounded,
    /// The sum of the terms' absolute values.
    terms: f64,
    count: usize,
}

impl Sum {
    /// One more term.
    pub fn add(&mut self, term: Bounded) {
        self.sum.value += term.value;
        self.sum.stored += term.stored;
        self.sum.summed += term.summed;
        if term.value != 0.0 {
            self.terms += term.value.abs();
            self.count += 1;
        }
    }

    /// The sum with the error of its additions: [`depth`] roundings of the sum of the absolute terms.
    pub fn total(self) -> Bounded {
        Bounded { summed: self.sum.summed + depth(self.count) * self.terms, ..self.sum }
    }
}

/// The largest error of a sum of `count` terms, as a number of roundings of the sum of the absolute terms.
///
/// In the worst case every term goes through `n - 1` roundings in one direction. Roundings have random directions, and then `2
/// sqrt(n)` holds with a wide margin even for a plain loop over terms of one sign (whose error is about `sqrt(n) / 3`; Higham and
/// Mary 2019 prove bounds of that form).
pub fn depth(count: usize) -> f64 {
    let worst = count.saturating_sub(1) as f64;
    worst.min(2.0 * (count as f64).sqrt())
}

impl FromIterator<Bounded> for Sum {
    fn from_iter<T: IntoIterator<Item = Bounded>>(terms: T) -> Self {
        let mut sum = Sum::default();
        terms.into_iter().for_each(|term| sum.add(term));
        sum
    }
}

/// The sum of `terms`.
pub fn sum(terms: impl IntoIterator<Item = Bounded>) -> Bounded {
    terms.into_iter().collect::<Sum>().total()
}

/// `sum a b`.
pub fn dot(a: &[Bounded], b: &[Bounded]) -> Bounded {
    sum(a.iter().zip(b).map(|(&a, &b)| a * b))
}

/// `log sum exp` of the scores, computed from their largest; minus infinity if there are none. `kept` is the rounding that a
/// kernel may apply to the exponentials before it adds them up.
pub fn log_sum_exp(scores: &[Bounded], kept: impl Fn(Bounded) -> Bounded) -> Bounded {
    let largest = scores.iter().map(|s| s.value).fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return exact(largest);
    }
    // Any shift of about that size gives the same result, so the largest score adds no error of its own.
    sum(scores.iter().map(|&s| kept((s - exact(largest)).exp()))).ln() + exact(largest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use telos_random::SplitMix64;

    const UNIT: f64 = f64::EPSILON / 2.0;

    /// Catches a limit relative to the sum, which is 0 if the terms cancel.
    #[test]
    fn a_sum_that_cancels_keeps_the_error_of_its_terms() {
        let zero = sum([exact(1e6), exact(-1e6), exact(1.0), exact(-1.0)]);
        assert_eq!((zero.value, zero.summed), (0.0, 3.0 * 2_000_002.0));
        // In f32 another order leaves 0.0625 of 1e6 + 0.03; the limit must cover it.
        let found = (1e6f32 + 0.03) - 1e6 - 0.03;
        let bounded = sum([exact(1e6), exact(0.03f32.into()), exact(-1e6), exact(f64::from(-0.03f32))]);
        assert!(f64::from(found.abs()) <= bounded.summed * f64::from(f32::EPSILON) / 2.0, "{found}");
        assert_eq!(exact(3.0) * exact(0.5) - exact(1.5), Bounded { value: 0.0, stored: 0.0, summed: 1.5 });
    }

    /// Catches a step whose error is not counted: each chain of f32 operations must stay within its bound, and use some of it.
    #[test]
    fn chains_of_f32_operations_stay_within_their_bounds() {
        let unit = f64::from(f32::EPSILON) / 2.0;
        let mut largest: f64 = 0.0;
        for i in 1..2000 {
            let (x, y) = (i as f32 * 0.003, 1.0 - i as f32 * 0.0007);
            let found = ((x * y - x).exp() / (y + 3.0)).tanh() - x.sqrt().ln();
            let (a, b) = (exact(x.into()), exact(y.into()));
            let expected = ((a * b - a).exp() / (b + exact(3.0))).tanh() - a.sqrt().ln();
            let error = (f64::from(found) - expected.value).abs();
            assert!(error <= unit * (expected.summed + expected.value.abs()), "{i}: {error:e} of {expected:?}");
            largest = largest.max(error / (unit * expected.summed));
        }
        assert!(largest > 0.05, "{largest}");
    }

    /// Catches a depth that a plain loop exceeds.
    #[test]
    fn a_plain_loop_stays_within_the_depth_limit() {
        for n in [2usize, 5, 30, 1000, 100_000] {
            let mut rng = SplitMix64::new(n as u64);
            let terms: Vec<f32> = (0..n).map(|_| rng.between(0.05, 0.15) as f32).collect();
            let found: f32 = terms.iter().sum();
            let bounded = sum(terms.iter().map(|&t| exact(t.into())));
            let limit = bounded.summed * f64::from(f32::EPSILON) / 2.0;
            let error = (f64::from(found) - bounded.value).abs();
            assert!(error <= limit, "{n}: {error:e} of {limit:e}");
        }
    }

    #[test]
    fn functions_stay_accurate_at_extreme_arguments() {
        assert_eq!(exact(-1e4).sigmoid().value, 0.0);
        assert!((exact(-6.0).one_plus_erf().value / libm::erfc(6.0) - 1.0).abs() < 4.0 * UNIT);
        assert_eq!(log_sum_exp(&[], |p| p).value, f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[exact(1000.0)], |p| p).value, 1000.0);
        assert_eq!(exact(0.0).sqrt(), exact(0.0));
    }
}
