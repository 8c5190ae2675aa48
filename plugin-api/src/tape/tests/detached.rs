//! Detached values keep their values while differences are taken, in order, over all tapes of a call.

use ndarray::arr1;

use super::super::{
    CheckError, Detached, Tape, Tolerance, check_tape, record_detached, replay_detached, stop_gradient,
};

/// `sum(detach(mean x) x) + detach(first x)`, on two tapes and by hand.
fn loss(x: &[f64]) -> f64 {
    let (one, two) = (Tape::new(), Tape::new());
    let first = one.input("x", x);
    let [by_hand] = stop_gradient("first", [x[0]]);
    let product = (first.mean().detach() * first).sum().scalar().expect("sound");
    product + two.input("x", x).sum().detach_as("sum").scalar().expect("sound") + by_hand
}

/// Catches a record of only the last tape, another order, and values that move with the point.
#[test]
fn detached_values_keep_the_values_of_the_base_point() {
    let (base, detached) = record_detached(|| loss(&[1.0, 3.0]));
    let value = |name: &str, value: f64| Detached { name: name.into(), values: vec![value] };
    assert_eq!(detached, [value("first", 1.0), value("", 2.0), value("sum", 4.0)]);
    assert_eq!(base, 2.0 * 4.0 + 4.0 + 1.0);
    assert_eq!(replay_detached(&detached, || loss(&[10.0, 30.0])), Ok(2.0 * 40.0 + 4.0 + 1.0));
    assert_eq!(loss(&[10.0, 30.0]), 20.0 * 40.0 + 40.0 + 10.0, "the mode outlives the call");
}

/// Catches a replay that gives a branch the values of another, or returns no error if some values are left over.
#[test]
fn a_branch_that_detaches_other_values_is_named() {
    let branch = |x: &[f64]| {
        let tape = Tape::new();
        let input = tape.input("x", x);
        if x[0] > 0.0 { (input.detach() + input.exp().detach()).sum() } else { input.detach().sum() }.scalar()
    };
    let (_, two) = record_detached(|| branch(&[1.0]));
    let (_, one) = record_detached(|| branch(&[-1.0]));
    for (values, at, expected) in [
        (&two, [-1.0].as_slice(), "2 values at the base point and 1 here"),
        (&one, &[1.0], "1 values at the base point and more here"),
        (&one, &[-1.0, 2.0], "of 1 numbers at the base point and is `` of 2 numbers"),
    ] {
        let why = replay_detached(values, || branch(at)).expect_err("another branch");
        assert!(why.contains(expected) && why.contains("detach in every branch"), "{why}");
    }
}

/// Catches a mode that remains after a panic: every later loss of the thread would compute with old values.
#[test]
fn a_panic_resets_the_mode() {
    let caught = std::panic::catch_unwind(|| {
        replay_detached(&[Detached { name: String::new(), values: vec![7.0] }], || -> f64 { panic!("inside") })
    });
    assert!(caught.is_err());
    assert_eq!(stop_gradient("", [1.0]), [1.0]);
}

/// Catches a checker that reports a stop-gradient as a missing term, and one that therefore accepts a wrong factor.
#[test]
fn the_checker_holds_detached_values_constant() {
    let point = [("x", arr1(&[-1.7, -0.6, 0.4]).into_dyn())];
    check_tape(Tape::new, &point, Tolerance::default(), |_, x| (x[0].mean().detach() * x[0].exp()).sum())
        .expect("a constant factor");
    let branches = check_tape(Tape::new, &[("x", arr1(&[0.0]).into_dyn())], Tolerance::default(), |_, x| {
        let up = x[0].to_vec().is_ok_and(|x| x[0] > 0.0);
        if up { x[0].detach().sum() } else { x[0].sum() }
    });
    assert!(matches!(&branches, Err(CheckError::Value(why)) if why.contains("every branch")), "{branches:?}");
}
