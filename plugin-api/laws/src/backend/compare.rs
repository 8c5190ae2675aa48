//! When two results agree.
//!
//! In the conformance suite the error of an element is `|found - expected|`, and its limit follows from the terms that were added
//! up for it: [`super::limits`]. Integers, infinities and NaN must be equal; operations that only move values must give equal
//! values too.
//!
//! [`distance`] measures operations on real data, for which only inputs and results are known: it compares with the scale of the
//! whole operand.

use super::{
    case::{Case, is_exact},
    limits::Limits,
    stage::Outcome,
    tensor::Tensor,
};
use crate::{Agreement, Broken};
use plugin_api::{
    abi::DType,
    backend::catalogue::{Class, OpSpec},
};

/// The smallest scale of an operand of the laws, whose inputs are of the order of 1.
const LEAST_SCALE: f64 = 0.1;

/// The limit of [`distance`] for results of `dtype`: about sixty roundings in f32, five in bf16.
pub fn limit(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-12,
        DType::F32 => 1e-5,
        DType::BF16 => 2e-2,
        _ => 0.0,
    }
}

/// The limit for one operand: that of its own dtype, or of the compute dtype if the operation has operands of that dtype.
fn operand_limit(spec: &OpSpec, compute: DType, own: DType) -> f64 {
    if is_exact(spec) || own == DType::I32 {
        return 0.0;
    }
    let has_compute = spec.inputs.iter().chain(spec.outputs).any(|operand| operand.class == Class::T);
    let inner = if has_compute { compute } else { compute.accumulator() };
    limit(inner).max(limit(own))
}

/// The error of `found` in one element, relative to its value and the scale.
fn error(expected: f64, found: f64, scale: f64) -> f64 {
    let difference = difference(expected, found);
    if difference == 0.0 || difference.is_infinite() { difference } else { difference / (expected.abs() + scale) }
}

/// The worst error over a tensor, and where it is.
pub fn worst(expected: &Tensor, found: &Tensor) -> (f64, usize) {
    let scale = root_mean_square(&expected.data).max(LEAST_SCALE);
    worst_of(&expected.data, &found.data, |_| scale)
}

fn worst_of(expected: &[f64], found: &[f64], scale: impl Fn(usize) -> f64) -> (f64, usize) {
    let errors = expected.iter().zip(found).enumerate().map(|(at, (&e, &f))| (error(e, f, scale(at)), at));
    errors.fold((0.0, 0), |worst, (error, at)| if error > worst.0 { (error, at) } else { worst })
}

fn root_mean_square(values: &[f64]) -> f64 {
    let finite = || values.iter().filter(|x| x.is_finite());
    (finite().map(|x| x * x).sum::<f64>() / finite().count().max(1) as f64).sqrt()
}

/// How far a result is from the expected one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// The worst error of an element, by the measure of the laws.
    pub error: f64,
    /// The index of the element.
    pub at: usize,
    /// The limit of the error.
    pub limit: f64,
}

/// The distance of an output of `cols` columns of operation `spec`, computed in `compute` and stored in `own`, by the laws'
/// measure with the scale of real data: `inputs` is the order of magnitude of the inputs (1 in the laws). For a row that is larger
/// than the whole, as the gradients at a sequence's first token are, its own root mean square is the scale.
pub fn distance(
    spec: &OpSpec,
    (compute, own): (DType, DType),
    cols: usize,
    (expected, found): (&[f64], &[f64]),
    inputs: f64,
) -> Distance {
    let whole = root_mean_square(expected).max(LEAST_SCALE * inputs);
    let rows: Vec<f64> = expected.chunks(cols.max(1)).map(|row| root_mean_square(row).max(whole)).collect();
    let (error, at) = worst_of(expected, found, |at| rows[at / cols.max(1)]);
    Distance { error, at, limit: operand_limit(spec, compute, own) }
}

/// Compares every output: the error that is largest relative to its limit, or what disagrees.
pub fn compare(case: &Case, expected: &Outcome, limits: &Limits, found: &Outcome) -> Result<Agreement, Broken> {
    if let Some(place) = &found.trespass {
        return Err(format!("wrote outside its outputs: {place}").into());
    }
    let mut largest = Agreement::EXACT;
    for spec in case.spec.outputs {
        let (Some(e), Some(f)) = (expected.output(spec.name), found.output(spec.name)) else { continue };
        let (agreement, at) = nearest_to_limit(&e.data, &f.data, limits.of(spec.name));
        if agreement.error > agreement.limit {
            let (row, column) = (at / e.cols.max(1), at % e.cols.max(1));
            let text = format!(
                "{}[{row}, {column}]: expected {:e}, found {:e}, error {:.1e} above {:.1e}",
                spec.name, e.data[at], f.data[at], agreement.error, agreement.limit
            );
            return Err(Broken { text, agreement: Some(agreement) });
        }
        largest = largest.worse(agreement);
    }
    Ok(largest)
}

/// The element whose error is largest relative to its limit (0 everywhere without limits), with its index.
fn nearest_to_limit(expected: &[f64], found: &[f64], limits: Option<&[f64]>) -> (Agreement, usize) {
    let of = |(at, (&e, &f)): (usize, (&f64, &f64))| {
        let limit = limits.map_or(0.0, |limits| limits[at]);
        (Agreement::new(difference(e, f), limit), at)
    };
    let elements = expected.iter().zip(found).enumerate().map(of);
    elements.fold(
        (Agreement::EXACT, 0),
        |worst, element| {
            if worst.0.worse(element.0) == worst.0 { worst } else { element }
        },
    )
}

/// Distance of `found` from `expected`: 0 if both are the same special value, infinite if only one is special.
fn difference(expected: f64, found: f64) -> f64 {
    let same = expected == found || (expected.is_nan() && found.is_nan());
    match same {
        true => 0.0,
        false if expected.is_finite() && found.is_finite() => (found - expected).abs(),
        false => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_extra_nan_is_an_error() {
        let finite = Tensor::row([1.0, 2.0]);
        let lost = Tensor::row([1.0, f64::NAN]);
        assert_eq!(worst(&finite, &lost), (f64::INFINITY, 1));
        assert_eq!(worst(&lost, &finite), (f64::INFINITY, 1));
        assert_eq!(worst(&lost, &lost).0, 0.0);
    }

    /// Catches gradients that are compared with inputs of the order of 1, and a large row compared with small ones.
    #[test]
    fn real_data_is_measured_on_its_own_scale() {
        let of = |expected: &[f64], found: &[f64]| {
            let spec = plugin_api::backend::ops::CATALOGUE.iter().find(|spec| spec.name == "linear").unwrap();
            distance(spec, (DType::F32, DType::F32), 2, (expected, found), 1e-6)
        };
        let wrong = of(&[1e-7, 2e-7], &[1e-7, 3e-7]);
        assert!(wrong.error > 1e4 * wrong.limit && wrong.at == 1, "{wrong:?}");
        let mut expected = vec![1e-7; 2000];
        expected[..2].copy_from_slice(&[1e-8, 1e-2]);
        let mut found = expected.clone();
        found[0] += 1e-9;
        let rounding = of(&expected, &found);
        assert!(rounding.error < rounding.limit, "{rounding:?}");
    }

    /// Catches an element that is chosen by its error alone, without the limit, and a lost limit.
    #[test]
    fn the_element_nearest_its_limit_is_named() {
        let (expected, found) = ([0.0, 100.0, 5.0], [2e-6, 100.001, 5.0]);
        let (worst, at) = nearest_to_limit(&expected, &found, Some(&[1e-6, 1.0, 0.0]));
        assert_eq!((worst, at), (Agreement::new(2e-6, 1e-6), 0));
        let (worst, at) = nearest_to_limit(&expected, &[0.0, 100.0, 5.1], Some(&[1e-6, 1.0, 0.0]));
        assert!(at == 2 && worst.limit == 0.0 && worst.error > 0.09, "{worst:?}");
        assert_eq!(nearest_to_limit(&expected, &expected, None).0, Agreement::EXACT);
        assert_eq!(nearest_to_limit(&[f64::NAN], &[1.0], Some(&[0.0])).0.error, f64::MAX);
    }

    #[test]
    fn one_wrong_value_among_many_small_ones_is_detected() {
        let expected = Tensor::generate(100, 10, || 1.0);
        let mut found = expected.clone();
        found.data[777] = 1.001;
        let (error, at) = worst(&expected, &found);
        assert!(at == 777 && error > 4e-4, "{error} at {at}");
    }
}
