//! The finite-difference check of whether a claimed gradient is the derivative of the value. Used for the tape's own operations,
//! and for the losses of objectives, whose cotangents come from the tape or are derived by hand.

use std::fmt::Display;

use ndarray::ArrayD;

use super::detached::{record_detached, replay_detached};
use super::error::TapeError;
use super::graph::{Tape, Var};

/// How far a claimed derivative may lie from the measured one: `relative * max(|claimed|, |measured|)` plus
/// `absolute * max(1, |value|)`.
///
/// The defaults (1e-6, 1e-8) leave a factor of about 100 over the error of central differences in f64 for smooth functions of
/// moderate curvature. The absolute part grows with the value because the difference of two large values loses digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Share of the greater derivative.
    pub relative: f64,
    /// Share of the value, or of 1 if that is greater.
    pub absolute: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { relative: 1e-6, absolute: 1e-8 }
    }
}

/// Why a gradient is not accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CheckError {
    /// The claimed derivative is not the measured one; if there are several, the first.
    #[error(
        "derivative by `{input}`[{index}] at {at}: claimed {claimed}, measured {measured} (a factor of {:.6}), \
         {wrong} of {checked} derivatives are wrong",
        claimed / measured
    )]
    Mismatch {
        /// The input's name.
        input: String,
        /// The index of its element, in row-major order.
        index: usize,
        /// The element's value.
        at: f64,
        /// The derivative that was claimed.
        claimed: f64,
        /// The central difference.
        measured: f64,
        /// How many derivatives are wrong.
        wrong: usize,
        /// How many there are.
        checked: usize,
    },
    /// The claimed gradients do not fit the inputs.
    #[error("gradient {index}: input `{input}` has shape {expected:?}, the gradient {found:?}")]
    Shape {
        /// Which input.
        index: usize,
        /// Its name.
        input: String,
        /// Its shape.
        expected: Vec<usize>,
        /// The gradient's shape; empty if there is none.
        found: Vec<usize>,
    },
    /// The value at the point or next to it is NaN or infinite, so nothing can be measured there.
    #[error("the value is {0} at or next to the point")]
    NotFinite(f64),
    /// The value could not be computed.
    #[error("the value could not be computed: {0}")]
    Value(String),
    /// The tape was used wrongly.
    #[error(transparent)]
    Tape(#[from] TapeError),
}

/// Compares `claimed[i]`, the gradient by the named array `point[i]`, with central differences of `value`, element by element. Calls
/// `value` twice per element, with steps of about 6e-6 times the element (or 1, if that is greater): the point must be that
/// far from kinks (bounds of a clamp, ties in a maximum or a sort); at a kink the claimed slope may be that of either side.
///
/// # Errors
/// The first derivative outside `tolerance`, or why nothing could be compared.
pub fn check_gradient<E: Display>(
    point: &[(&str, ArrayD<f64>)],
    claimed: &[ArrayD<f64>],
    tolerance: Tolerance,
    value: impl FnMut(&[ArrayD<f64>]) -> Result<f64, E>,
) -> Result<(), CheckError> {
    gradient_error(point, claimed, tolerance, value).map(drop)
}

/// The same; returns the largest difference found as a fraction of what `tolerance` allows, from 0 to 1.
///
/// # Errors
/// As [`check_gradient`].
pub fn gradient_error<E: Display>(
    point: &[(&str, ArrayD<f64>)],
    claimed: &[ArrayD<f64>],
    tolerance: Tolerance,
    mut value: impl FnMut(&[ArrayD<f64>]) -> Result<f64, E>,
) -> Result<f64, CheckError> {
    let mut finite_value = |at: &[ArrayD<f64>]| match value(at) {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(value) => Err(CheckError::NotFinite(value)),
        Err(error) => Err(CheckError::Value(error.to_string())),
    };
    let mut at: Vec<ArrayD<f64>> = point.iter().map(|(_, values)| values.clone()).collect();
    let base = finite_value(&at)?;
    let slack = tolerance.absolute * base.abs().max(1.0);
    let (mut first, mut wrong, mut checked, mut greatest) = (None, 0, 0, 0.0_f64);
    for (i, (name, values)) in point.iter().enumerate() {
        let expected = values.shape().to_vec();
        let found = claimed.get(i).map(|claimed| claimed.shape().to_vec()).unwrap_or_default();
        let Some(claimed) = claimed.get(i).filter(|claimed| claimed.shape() == expected) else {
            return Err(CheckError::Shape { index: i, input: (*name).to_owned(), expected, found });
        };
        for (index, (x, claimed)) in values.iter().zip(claimed).enumerate() {
            let [above, below] = one_sided_differences(&mut at, i, index, *x, base, &mut finite_value)?;
            let measured = (above + below) / 2.0;
            let allowed = tolerance.relative * claimed.abs().max(measured.abs()) + slack;
            checked += 1;
            let agrees = (claimed - measured).abs() <= allowed; // a NaN does not
            if !agrees && is_side_of_kink(*claimed, above, below) {
                continue;
            }
            greatest = greatest.max((claimed - measured).abs() / allowed);
            if !agrees {
                wrong += 1;
                first.get_or_insert((*name, index, *x, *claimed, measured));
            }
        }
    }
    match first {
        None => Ok(greatest),
        Some((input, index, at, claimed, measured)) => {
            Err(CheckError::Mismatch { input: input.to_owned(), index, at, claimed, measured, wrong, checked })
        }
    }
}

/// The same for a loss written on a tape: `build` gets the point's arrays as inputs of a tape from `new_tape` (`Tape::new`, or a
/// closure that calls [`Tape::with_offsets`]) and returns the scalar whose gradient is checked.
///
/// ```
/// use plugin_api::tape::{CheckError, Tape, Tolerance, check_tape};
///
/// let point = [("margin", ndarray::arr1(&[-2.0, 0.5]).into_dyn())];
/// check_tape(Tape::new, &point, Tolerance::default(), |_, x| -x[0].log_sigmoid().sum())?;
/// // A detached value is a constant of the gradient, and keeps its value at the point while differences are taken.
/// check_tape(Tape::new, &point, Tolerance::default(), |_, x| (x[0].detach() * x[0]).sum())?;
/// # Ok::<(), CheckError>(())
/// ```
///
/// # Errors
/// As [`check_gradient`], and the tape's own.
pub fn check_tape(
    new_tape: impl Fn() -> Tape,
    point: &[(&str, ArrayD<f64>)],
    tolerance: Tolerance,
    build: impl for<'t> Fn(&'t Tape, &[Var<'t>]) -> Var<'t>,
) -> Result<(), CheckError> {
    let tape = new_tape();
    let inputs: Vec<_> = point.iter().map(|(name, values)| tape.input(*name, values)).collect();
    let (root, detached) = record_detached(|| build(&tape, &inputs));
    let gradients = tape.backward(root)?;
    let claimed: Vec<_> = gradients.by_name().map(|(_, gradient)| gradient.clone()).collect();
    check_gradient(point, &claimed, tolerance, |at| {
        let tape = new_tape();
        let inputs: Vec<_> = point.iter().zip(at).map(|((name, _), values)| tape.input(*name, values)).collect();
        let value = replay_detached(&detached, || build(&tape, &inputs).scalar())?;
        value.map_err(|error| error.to_string())
    })
}

/// Whether the slopes above and below the point differ, as at the bound of a clamp, and `claimed` is one of them: both one-sided
/// derivatives are correct there.
fn is_side_of_kink(claimed: f64, above: f64, below: f64) -> bool {
    let largest = above.abs().max(below.abs());
    let near = |slope: f64| (claimed - slope).abs() <= 1e-4 * largest;
    (above - below).abs() > 1e-2 * largest && (near(above) || near(below))
}

/// `(f(x + h) - f(x)) / h` and `(f(x) - f(x - h)) / h` by element `index` of array `i`. `f(x)` is `base`; the element is `x` again
/// afterwards. Their mean is the central difference.
fn one_sided_differences(
    at: &mut [ArrayD<f64>],
    i: usize,
    index: usize,
    x: f64,
    base: f64,
    value: &mut impl FnMut(&[ArrayD<f64>]) -> Result<f64, CheckError>,
) -> Result<[f64; 2], CheckError> {
    // A step of the cube root of the machine epsilon balances truncation error against rounding error.
    let step = f64::EPSILON.cbrt() * x.abs().max(1.0);
    let (above, below) = (x + step, x - step);
    let mut values = [0.0; 2];
    for (result, to) in values.iter_mut().zip([above, below]) {
        set(&mut at[i], index, to);
        *result = value(at)?;
    }
    set(&mut at[i], index, x);
    // Divided by the step after rounding; both by half of the whole step, so that the mean is the central difference.
    let half = (above - below) / 2.0;
    Ok([(values[0] - base) / half, (base - values[1]) / half])
}

fn set(array: &mut ArrayD<f64>, index: usize, to: f64) {
    if let Some(element) = array.iter_mut().nth(index) {
        *element = to;
    }
}
