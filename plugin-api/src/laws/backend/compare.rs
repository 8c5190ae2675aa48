//! When two results agree.
//!
//! The error of a value is `|found - expected| / (|expected| + scale)`, where `scale` is the root mean square of the
//! whole expected operand, at least 0.1 (inputs are of the order of 1, so sums that cancel to nothing still carry
//! rounding of that order). It must not exceed the limit of the dtype. Integers, infinities and not-a-number agree
//! exactly; operations that only move values agree exactly too.

use super::{case::Case, stage::Outcome, tensor::Tensor};
use crate::{
    abi::DType,
    backend::catalogue::{Class, OpSpec},
    laws::{Agreement, Broken},
};

/// Operations that move or round values and compute nothing.
const EXACT: &[&str] = &["nop", "fill", "copy", "cast", "gather_rows"];

/// The limit for results of `dtype`: some sixty roundings in f32, five in bf16.
pub fn limit(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-12,
        DType::F32 => 1e-5,
        DType::BF16 => 2e-2,
        _ => 0.0,
    }
}

/// The limit for one operand: its own dtype's, or the compute dtype's where the operation has operands of that.
fn operand_limit(spec: &OpSpec, compute: DType, own: DType) -> f64 {
    if EXACT.contains(&spec.name) || own == DType::I32 {
        return 0.0;
    }
    let has_compute = spec.inputs.iter().chain(spec.outputs).any(|operand| operand.class == Class::T);
    let inner = if has_compute { compute } else { compute.accumulator() };
    limit(inner).max(limit(own))
}

/// The error of `found` at a place, and whether two special values agree.
fn error(expected: f64, found: f64, scale: f64) -> f64 {
    let same = expected == found || (expected.is_nan() && found.is_nan());
    match same {
        true => 0.0,
        false if expected.is_finite() && found.is_finite() => (found - expected).abs() / (expected.abs() + scale),
        false => f64::INFINITY,
    }
}

/// The worst error over a tensor, and where it is.
pub fn worst(expected: &Tensor, found: &Tensor) -> (f64, usize) {
    let finite: Vec<f64> = expected.data.iter().copied().filter(|x| x.is_finite()).collect();
    let square = finite.iter().map(|x| x * x).sum::<f64>() / finite.len().max(1) as f64;
    let scale = square.sqrt().max(0.1);
    let errors = expected.data.iter().zip(&found.data).map(|(&e, &f)| error(e, f, scale));
    errors.enumerate().fold((0.0, 0), |worst, (at, error)| if error > worst.0 { (error, at) } else { worst })
}

/// Compares every output: the worst error, or what disagrees.
pub fn compare(case: &Case, compute: DType, expected: &Outcome, found: &Outcome) -> Result<Agreement, Broken> {
    if let Some(place) = &found.trespass {
        return Err(format!("wrote outside its outputs: {place}").into());
    }
    let mut largest = Agreement::EXACT;
    for spec in case.spec.outputs {
        let (Some(e), Some(f)) = (expected.output(spec.name), found.output(spec.name)) else { continue };
        let limit = operand_limit(case.spec, compute, case.dtype_of(spec, compute));
        let (error, at) = worst(e, f);
        if error > limit {
            let (row, column) = (at / e.cols.max(1), at % e.cols.max(1));
            let text = format!(
                "{}[{row}, {column}]: expected {:e}, found {:e}, error {error:.1e} above {limit:.0e}",
                spec.name, e.data[at], f.data[at]
            );
            return Err(Broken { text, agreement: Some(Agreement::new(error, limit)) });
        }
        largest = largest.worse(Agreement::new(error, limit));
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_or_invented_nan_is_an_error() {
        let finite = Tensor::row([1.0, 2.0]);
        let lost = Tensor::row([1.0, f64::NAN]);
        assert_eq!(worst(&finite, &lost), (f64::INFINITY, 1));
        assert_eq!(worst(&lost, &finite), (f64::INFINITY, 1));
        assert_eq!(worst(&lost, &lost).0, 0.0);
    }

    #[test]
    fn one_wrong_value_among_many_small_ones_is_seen() {
        let expected = Tensor::generate(100, 10, || 1.0);
        let mut found = expected.clone();
        found.data[777] = 1.001;
        let (error, at) = worst(&expected, &found);
        assert!(at == 777 && error > 4e-4, "{error} at {at}");
    }
}
