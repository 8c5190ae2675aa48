//! The allowed distance of a result from the reference's: it follows from the size of the terms that are added up, not from the
//! size of the result.
//!
//! Each operation is evaluated once more from the catalogue's formula, on numbers that carry the error of every correct way to
//! compute them ([`bounded`]). A dot product of n terms that cancel to 0 therefore has a limit of `depth(n) * roundoff * sum of
//! the absolute terms`. If stages follow each other (probabilities, then the values they weight, then a difference), the errors of
//! one are carried through the next.
//!
//! With `t` the roundoff of the compute dtype and `a` that of its accumulator (both half of the dtype's epsilon), the
//! limit of an element is
//!
//! ```text
//! stored t + summed (a + f64's, for the reference computes in that) + 2 |value| (the output dtype's, for both write)
//! ```
//!
//! An output that is only moved has no error, so its limit is 0. The evaluation must give the reference's own values: a mistake in
//! either is then detected.

mod attention;
pub mod bounded;
mod candidates;
mod divergence;
mod elementwise;
mod head;
mod norm;
mod operands;
mod products;
mod sample;

use super::{
    case::{Case, is_exact},
    stage::Outcome,
};
use bounded::Bounded;
use operands::{Matrix, Operands, Outputs, as_stored, roundoff};
use plugin_api::{Error, Result, abi::DType, backend::catalogue::OperandSpec};

/// The allowed distance of each element of each output from the reference's.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits(Vec<(&'static str, Vec<f64>)>);

impl Limits {
    /// The limits of an output's elements; `None` if it must be equal.
    pub fn of(&self, output: &str) -> Option<&[f64]> {
        self.0.iter().find(|(name, _)| *name == output).map(|(_, limits)| limits.as_slice())
    }

    /// The limits of `case`, computed in `compute`, whose results on the reference are `expected`.
    ///
    /// # Errors
    /// If the operation is unknown here, or if its evaluation contradicts the reference.
    pub fn of_case(case: &Case, compute: DType, expected: &Outcome) -> Result<Limits> {
        let mut limits = Vec::new();
        for (name, matrix) in evaluate(case, compute, expected)? {
            let Some(spec) = case.spec.outputs.iter().find(|spec| spec.name == name) else {
                return Err(Error::internal(format!("{} has no output `{name}`", case.spec.name)));
            };
            let Some(reference) = expected.output(name) else { continue };
            let of = limits_of(case, compute, spec, &matrix);
            agrees(case, spec, &reference.data, &matrix, &of)?;
            limits.push((name, of));
        }
        Ok(Limits(limits))
    }
}

/// The largest number that a kernel may flush to zero, with a margin for a later factor.
fn smallest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MIN_POSITIVE * 1024.0,
        _ => f64::from(f32::MIN_POSITIVE) * 1024.0,
    }
}

fn limits_of(case: &Case, compute: DType, spec: &OperandSpec, matrix: &Matrix) -> Vec<f64> {
    let own = case.dtype_of(spec, compute);
    let limit = |x: &Bounded| {
        let inexact = x.stored != 0.0 || x.summed != 0.0;
        let written =
            if inexact || as_stored(own, x.value) != x.value { 2.0 * roundoff(own) * x.value.abs() } else { 0.0 };
        let summed = roundoff(compute.accumulator()) + roundoff(DType::F64);
        let flushed = if inexact { smallest(own) } else { 0.0 };
        x.stored * roundoff(compute) + x.summed * summed + written + flushed
    };
    // Values that are not finite must be equal, whatever the limit is.
    matrix.data.iter().map(|x| if x.value.is_finite() { limit(x) } else { 0.0 }).collect()
}

/// Checks that the evaluation gives the reference's values, and has a limit for each.
fn agrees(case: &Case, spec: &OperandSpec, reference: &[f64], matrix: &Matrix, limits: &[f64]) -> Result<()> {
    let broken =
        |what: String| Error::internal(format!("limits of {}, {}: `{}` {what}", case.spec.name, case.name, spec.name));
    if reference.len() != matrix.data.len() {
        return Err(broken(format!("has {} elements, the reference {}", matrix.data.len(), reference.len())));
    }
    for (at, ((&expected, x), &limit)) in reference.iter().zip(&matrix.data).zip(limits).enumerate() {
        let same = expected == x.value || (expected.is_nan() && x.value.is_nan());
        let near = (expected - x.value).abs() <= limit;
        // A value outside the dtype's range is stored as infinite.
        let beyond = expected.is_infinite() && x.value.is_finite() && expected.is_sign_positive() == (x.value > 0.0);
        if !limit.is_finite() || !(same || near || beyond) {
            return Err(broken(format!(
                "[{at}] is {:e} with a limit of {limit:e}, the reference has {expected:e}",
                x.value
            )));
        }
    }
    Ok(())
}

/// The outputs of an operation that computes. Integers and values that are only moved are left out: they must be equal.
fn evaluate(case: &Case, compute: DType, expected: &Outcome) -> Result<Outputs> {
    if is_exact(case.spec) {
        return Ok(Vec::new());
    }
    let files = [
        attention::FORMULAS,
        candidates::FORMULAS,
        divergence::FORMULAS,
        elementwise::FORMULAS,
        head::FORMULAS,
        norm::FORMULAS,
        products::FORMULAS,
        sample::FORMULAS,
    ];
    match files.iter().copied().flatten().find(|(name, _)| *name == case.spec.name) {
        Some((_, formula)) => formula(&Operands::new(case, compute, expected)),
        None => Err(Error::internal(format!("no limits for `{}`: add it to the laws' `limits`", case.spec.name))),
    }
}
