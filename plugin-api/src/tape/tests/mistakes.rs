//! Common mistakes in derivatives by hand: each is written on a tape with the right value and the wrong derivative and must be
//! refused by the checker, while the right derivative, written the same way, is accepted.

use ndarray::arr1;

use super::super::{CheckError, Tape, Tolerance, Var, check_gradient};
use super::Build;

/// A variable with the value of `value` whose derivative by `x` is `derivative`.
fn forge<'t>(x: Var<'t>, value: Var<'t>, derivative: Var<'t>) -> Var<'t> {
    value.detach() + derivative.detach() * (x - x.detach())
}

/// [`check_tape`](super::super::check_tape), but with detached values that move, because those of [`forge`] do.
fn check(build: Build) -> Result<(), CheckError> {
    let point = [("x", arr1(&[-1.7, -0.6, -0.2]).into_dyn())];
    let (tape, at) = (Tape::new(), &point[0].1);
    let root = super::weighted(&tape, build(&tape, &[tape.input("x", at)]));
    let claimed: Vec<_> = tape.backward(root)?.by_name().map(|(_, gradient)| gradient.clone()).collect();
    check_gradient(&point, &claimed, Tolerance::default(), |at| {
        let tape = Tape::new();
        super::weighted(&tape, build(&tape, &[tape.input("x", &at[0])])).scalar()
    })
}

#[track_caller]
fn refused(build: Build) {
    let answer = check(build);
    assert!(matches!(answer, Err(CheckError::Mismatch { .. })), "not refused: {answer:?}");
}

#[test]
fn the_right_derivative_is_accepted() {
    check(|_, x| forge(x[0], x[0].log_sigmoid(), (-x[0]).sigmoid())).expect("the derivative of log_sigmoid");
    check(|_, x| forge(x[0], x[0].log1mexp(), -1.0 / ((-x[0]).exp() - 1.0))).expect("the derivative of log1mexp");
}

#[test]
fn log_sigmoid_with_the_sign_of_its_argument_dropped() {
    refused(|_, x| forge(x[0], x[0].log_sigmoid(), x[0].sigmoid()));
}

#[test]
fn gotcha_25_log1mexp_without_its_minus() {
    refused(|_, x| forge(x[0], x[0].log1mexp(), 1.0 / ((-x[0]).exp() - 1.0)));
}

#[test]
fn a_product_with_one_factor_treated_as_constant() {
    refused(|_, x| x[0] * x[0].exp().detach());
}

#[test]
fn a_clamp_that_lets_the_gradient_through_outside() {
    refused(|tape, x| forge(x[0], x[0].clamp(-0.5, 0.5), tape.constant([1.0, 1.0, 1.0])));
}

#[test]
fn a_mean_with_the_gradient_of_a_sum() {
    refused(|tape, x| forge(x[0], x[0].mean().repeat_last(3), tape.constant([1.0, 1.0, 1.0])));
}

#[test]
fn a_sort_whose_gradient_is_not_permuted_back() {
    refused(|_, x| forge(x[0], (-x[0]).sort(), -x[0] / x[0]));
}

#[test]
fn a_nan_gradient() {
    let point = [("x", arr1(&[1.0]).into_dyn())];
    let square = |at: &[ndarray::ArrayD<f64>]| Ok::<_, String>(at[0].sum().powi(2));
    let answer = check_gradient(&point, &[arr1(&[f64::NAN]).into_dyn()], Tolerance::default(), square);
    assert!(matches!(answer, Err(CheckError::Mismatch { .. })), "{answer:?}");
    let answer = check_gradient(&point, &[], Tolerance::default(), square);
    assert!(matches!(answer, Err(CheckError::Shape { .. })), "{answer:?}");
    let answer =
        check_gradient(&point, &[arr1(&[2.0]).into_dyn()], Tolerance::default(), |_| Ok::<_, String>(f64::NAN));
    assert!(matches!(answer, Err(CheckError::NotFinite(_))), "{answer:?}");
    check_gradient(&point, &[arr1(&[2.0]).into_dyn()], Tolerance::default(), square)
        .expect("the derivative of a square");
}

/// Catches a tolerance that accepts a derivative with an error of 0.001 %.
#[test]
fn a_slightly_wrong_derivative() {
    refused(|_, x| forge(x[0], x[0].exp(), x[0].exp() * 1.00001));
}
