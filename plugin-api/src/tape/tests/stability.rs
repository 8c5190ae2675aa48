//! Extreme arguments, where the textbook formula gives inf, 0 or NaN.

use super::super::stable::{log_sigmoid, log1mexp, sigmoid, softplus};
use super::super::{Tape, Var};

/// Value and derivative of a function of one number.
fn at(x: f64, function: impl for<'t> Fn(Var<'t>) -> Var<'t>) -> (f64, f64) {
    let tape = Tape::new();
    let input = tape.input("x", x);
    let root = function(input);
    let gradients = tape.backward(root).expect("a sound tape");
    (root.scalar().expect("a scalar"), gradients.get(input).expect("an input").sum())
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 4.0 * f64::EPSILON * expected.abs(), "found {found:e}, expected {expected:e}");
}

/// Catches `-log(1 + exp(-x))`, which is -inf at -800, and `log(sigmoid(x))`.
#[test]
fn gotcha_14_log_sigmoid_is_stable() {
    assert_eq!(at(-800.0, |x| x.log_sigmoid()), (-800.0, 1.0));
    assert_eq!(at(-1e300, |x| x.log_sigmoid()), (-1e300, 1.0));
    assert_eq!(at(f64::NEG_INFINITY, |x| x.log_sigmoid()), (f64::NEG_INFINITY, 1.0));
    close(at(0.0, |x| x.log_sigmoid()).0, -std::f64::consts::LN_2);
    // log(1 + e^-40) is e^-40 to the last digit; 1 + e^-40 is 1.
    let tiny = (-40.0_f64).exp();
    close(at(40.0, |x| x.log_sigmoid()).0, -tiny);
    close(at(40.0, |x| x.log_sigmoid()).1, tiny);
    assert_eq!(at(800.0, |x| x.log_sigmoid()).0, 0.0);
    for x in [-30.0, -1.0, 0.0, 0.5, 25.0] {
        assert_eq!(log_sigmoid(x), -softplus(-x));
        // An error in the last digit of the exponent is multiplied by |x| in the exponential.
        assert!((log_sigmoid(x).exp() / sigmoid(x) - 1.0).abs() <= f64::EPSILON * (4.0 + x.abs()), "{x}");
        close(sigmoid(x) + sigmoid(-x), 1.0);
    }
}

/// Catches `log(1 - exp(x))`, which is -inf for every x above -1e-16 and 0 for every x below -37.
#[test]
fn gotcha_25_log1mexp_is_stable() {
    close(at(-1e-20, |x| x.log1mexp()).0, 1e-20_f64.ln());
    close(at(-1e-20, |x| x.log1mexp()).1, -1e20);
    close(at(-50.0, |x| x.log1mexp()).0, -(-50.0_f64).exp());
    close(at(-50.0, |x| x.log1mexp()).1, -(-50.0_f64).exp());
    assert_eq!(at(-800.0, |x| x.log1mexp()), (0.0, 0.0));
    assert_eq!(log1mexp(f64::NEG_INFINITY), 0.0);
    assert_eq!(log1mexp(0.0), f64::NEG_INFINITY);
    assert!(log1mexp(1e-9).is_nan());
    // Both formulas agree where they meet, and log1mexp is its own inverse.
    for x in [-0.7, -std::f64::consts::LN_2, -0.69, -1e-3, -5.0] {
        let again = log1mexp(log1mexp(x));
        assert!((again - x).abs() <= 1e-13 * x.abs(), "{x}: {again}");
    }
}

/// Catches `log(1 + exp(x))`, infinite from 710 on.
#[test]
fn softplus_sigmoid_and_tanh_are_stable() {
    assert_eq!(at(800.0, |x| x.softplus()), (800.0, 1.0));
    close(at(-40.0, |x| x.softplus()).0, (-40.0_f64).exp());
    assert_eq!(at(800.0, |x| x.sigmoid()), (1.0, 0.0));
    assert_eq!(at(-800.0, |x| x.sigmoid()), (0.0, 0.0));
    close(at(-700.0, |x| x.sigmoid()).0, (-700.0_f64).exp());
    // y (1 - y) is 0 here, because y rounds to 1.
    close(at(40.0, |x| x.sigmoid()).1, (-40.0_f64).exp());
    close(at(30.0, |x| x.tanh()).1, 4.0 * (-60.0_f64).exp());
    assert_eq!(at(800.0, |x| x.tanh()), (1.0, 0.0));
}

/// Catches a logsumexp that does not subtract the maximum, and -inf - -inf in either direction.
#[test]
fn logsumexp_is_stable() {
    let tape = Tape::new();
    let none = f64::NEG_INFINITY;
    let x = tape.input("x", [[1000.0, 1000.0], [-1000.0, none], [none, none]]);
    let lse = x.logsumexp();
    let found = lse.to_vec().expect("sound");
    close(found[0], 1000.0 + std::f64::consts::LN_2);
    assert_eq!(found[1..], [-1000.0, none]);
    let gradients = tape.backward(lse.sum()).expect("sound");
    assert_eq!(gradients.get(x).expect("an input").as_slice(), Some(&[0.5, 0.5, 1.0, 0.0, 0.0, 0.0][..]));
}

/// The conventions the module documents, which finite differences cannot see.
#[test]
fn derivatives_at_kinks_are_pytorch_s() {
    assert_eq!(at(0.0, |x| x.abs()).1, 0.0);
    assert_eq!(at(-0.0, |x| x.abs()).1, 0.0);
    assert_eq!(at(0.0, |x| x.relu()).1, 0.0);
    assert_eq!(at(1.0, |x| x.clamp(-1.0, 1.0)).1, 1.0);
    assert_eq!(at(-1.0, |x| x.clamp(-1.0, 1.0)).1, 1.0);
    assert_eq!(at(1.1, |x| x.clamp(-1.0, 1.0)).1, 0.0);
    assert_eq!(at(0.0, |x| x.max(0.0)).1, 0.5);
    assert_eq!(at(0.0, |x| x.min(0.0)).1, 0.5);
    assert_eq!(at(2.0, |x| x.max(x)), (2.0, 1.0));
    assert_eq!(at(0.0, |x| x.powi(0)), (1.0, 0.0));
}

/// Catches inf * 0 in the functions that select: relu, clamp, max and min block an infinite cotangent too.
#[test]
fn a_branch_not_selected_blocks_an_infinite_cotangent() {
    assert_eq!(at(-1.0, |x| x.relu().sqrt()), (0.0, 0.0));
    assert_eq!(at(-1.0, |x| x.clamp(0.0, 1.0).sqrt()), (0.0, 0.0));
    assert_eq!(at(-1.0, |x| x.max(0.0).sqrt()), (0.0, 0.0));
    assert_eq!(at(1.0, |x| (-x.min(0.0)).sqrt()), (0.0, 0.0));
    // Where no function selects, the NaN stays and the host refuses it: sqrt(x * x) has no derivative at 0.
    assert!(at(0.0, |x| x.square().sqrt()).1.is_nan());
}
