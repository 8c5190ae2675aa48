//! Values of operations: a gradient that agrees with a wrong value is wrong as well.

use ndarray::arr2;

use super::super::{Tape, Var};

type Pair = (fn(Var<'_>) -> Var<'_>, fn(f64) -> f64);

/// Catches a function that does not compute what its name states, at arguments where the textbook formula is safe.
#[test]
fn functions_of_one_number() {
    let functions: [Pair; 15] = [
        (|x| -x, |x| -x),
        (|x| x.exp(), f64::exp),
        (|x| x.abs().log(), |x| x.abs().ln()),
        (|x| x.abs().sqrt(), |x| x.abs().sqrt()),
        (|x| x.square(), |x| x * x),
        (|x| x.powi(-3), |x| 1.0 / (x * x * x)),
        (|x| x.abs(), f64::abs),
        (|x| x.sigmoid(), |x| 1.0 / (1.0 + (-x).exp())),
        (|x| x.log_sigmoid(), |x| (1.0 / (1.0 + (-x).exp())).ln()),
        (|x| (-x.abs()).log1mexp(), |x| (1.0 - (-x.abs()).exp()).ln()),
        (|x| x.softplus(), |x| (1.0 + x.exp()).ln()),
        (|x| x.tanh(), f64::tanh),
        (|x| x.relu(), |x| x.max(0.0)),
        (|x| x.clamp(-1.0, 0.5), |x| x.clamp(-1.0, 0.5)),
        (|x| x.detach(), |x| x),
    ];
    let points = [-2.5, -1.0, -0.3, 0.2, 0.9, 3.0];
    for (i, (ours, plain)) in functions.into_iter().enumerate() {
        let tape = Tape::new();
        let found = ours(tape.constant(points)).to_vec().expect("sound");
        for (found, x) in found.iter().zip(points) {
            assert!((found - plain(x)).abs() < 1e-14 * plain(x).abs().max(1.0), "function {i} at {x}: {found}");
        }
    }
}

/// Catches swapped operands and a scalar broadcast to the wrong side.
#[test]
fn functions_of_two_numbers_and_broadcasting() {
    let tape = Tape::new();
    let (v, w, s) = (tape.constant([6.0, -4.0]), tape.constant([3.0, 8.0]), tape.constant(2.0));
    let check = |var: Var<'_>, expected: [f64; 2]| assert_eq!(var.to_vec().expect("sound"), expected, "{var:?}");
    check(v + w, [9.0, 4.0]);
    check(v - w, [3.0, -12.0]);
    check(v * w, [18.0, -32.0]);
    check(v / w, [2.0, -0.5]);
    check(v.max(w), [6.0, 8.0]);
    check(v.min(w), [3.0, -4.0]);
    check(s - v, [-4.0, 6.0]);
    check(v - s, [4.0, -6.0]);
    check(1.0 / v * 12.0, [2.0, -3.0]);
    check(v / 2.0, [3.0, -2.0]);
    check(5.0 - v, [-1.0, 9.0]);
    check(tape.select(v.gt(w), v, w), [6.0, 8.0]);
    check(tape.select(s.ge(w), 1.0, 0.0), [0.0, 0.0]);
    assert_eq!(v.le(w).bits(), [false, true]);
    assert_eq!(v.lt(6.0).bits(), [false, true]);
    assert_eq!(v.ge(6.0).to_f64(), [1.0, 0.0]);
    assert_eq!((s / tape.constant(4.0)).shape().expect("sound"), [0_usize; 0]);
    tape.finish().expect("no mistake");
}

/// Catches a transposed factor or a wrong stride; 2 x 3 by 3 x 2, computed on paper, and ndarray's own product.
#[test]
fn matrices() {
    let tape = Tape::new();
    let (a, b) = (arr2(&[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), arr2(&[[1.0, 0.0], [-1.0, 2.0], [0.5, 1.0]]));
    let (x, y) = (tape.constant(&a), tape.constant(&b));
    assert_eq!(x.matmul(y).to_vec().expect("sound"), [0.5, 7.0, 2.0, 16.0]);
    assert_eq!(x.matmul(y).value().expect("sound"), a.dot(&b).into_dyn());
    assert_eq!(x.matmul(tape.constant([1.0, 0.0, -1.0])).to_vec().expect("sound"), [-2.0, -2.0]);
    assert_eq!(x.transpose().value().expect("sound"), a.t().to_owned().into_dyn());
    assert_eq!(tape.constant(a.t()).transpose().value().expect("sound"), a.clone().into_dyn());
    assert_eq!(x.sum_last().to_vec().expect("sound"), [6.0, 15.0]);
    assert_eq!(x.gather(&[2, 0]).to_vec().expect("sound"), [3.0, 4.0]);
    assert_eq!(
        tape.constant([1.0, 2.0]).repeat_last(2).value().expect("sound"),
        arr2(&[[1.0, 1.0], [2.0, 2.0]]).into_dyn()
    );
    let lse = x.logsumexp().to_vec().expect("sound");
    let plain = (4f64.exp() + 5f64.exp() + 6f64.exp()).ln();
    assert!((lse[1] - plain).abs() < 1e-14, "{lse:?}");
    assert_eq!(tape.concat(&[x, x]).shape().expect("sound"), [4, 3]);
}
