//! Masking selects: values behind a zero of a mask reach neither value nor gradient.

use super::super::{Mask, Tape, Var};

const BAD: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
const MASK: [bool; 4] = [true, false, true, false];

/// Builds a scalar from tokens of which the second and fourth are `bad`; value and gradient must not change.
fn blocks(name: &str, build: impl for<'t> Fn(&'t Tape, Var<'t>) -> Var<'t>) {
    for bad in BAD {
        let run = |hidden: f64| {
            let tape = Tape::with_offsets(&[0, 2, 4]);
            let x = tape.input("x", [0.5, hidden, -0.25, hidden]);
            let root = build(&tape, x);
            let gradients = tape.backward(root).expect("a sound tape");
            (root.scalar().expect("a scalar"), gradients.get(x).expect("an input").clone())
        };
        let ((value, gradient), (clean_value, clean_gradient)) = (run(bad), run(0.125));
        assert_eq!(value, clean_value, "{name}: value with {bad}");
        assert_eq!(gradient, clean_gradient, "{name}: gradient with {bad}");
        assert_eq!((gradient[[1]], gradient[[3]]), (0.0, 0.0), "{name}: gradient behind the mask");
        assert!(gradient[[0]] != 0.0, "{name}: a gradient of nothing but zeros shows nothing");
    }
}

/// Catches `x * mask`, which keeps a NaN.
#[test]
fn gotcha_08_masked_sums_and_means() {
    blocks("sum", |_, x| x.square().masked_sum(&MASK));
    blocks("mean", |_, x| x.square().masked_mean(&MASK));
    blocks("seq_sum", |_, x| x.square().seq_sum(&MASK).exp().sum());
    blocks("seq_mean", |_, x| x.square().seq_mean(&MASK).exp().sum());
}

/// Catches a chain rule that computes 0 * inf behind a mask: the mask comes after the function, so the function's derivative
/// is not finite where its cotangent is zero.
#[test]
fn gotcha_08_a_mask_applied_after_the_function() {
    blocks("exp", |_, x| x.exp().masked_sum(&MASK));
    blocks("log", |_, x| x.abs().log().masked_sum(&MASK));
    blocks("sqrt", |_, x| x.abs().sqrt().masked_sum(&MASK));
    blocks("div", |_, x| (1.0 / x + x / 3.0).masked_sum(&MASK));
    blocks("mul", |_, x| (x * x.exp()).masked_sum(&MASK));
    blocks("powi", |_, x| x.powi(-3).masked_sum(&MASK));
    blocks("log1mexp", |_, x| (-x.abs()).log1mexp().masked_sum(&MASK));
    blocks("max", |_, x| x.max(-x.exp()).masked_sum(&MASK));
    blocks("clamp", |_, x| x.exp().clamp(0.1, 5.0).masked_sum(&MASK));
}

/// Catches a `select` made of products, and one that blocks the value but not the gradient of the other branch.
#[test]
fn gotcha_08_select_blocks_the_branch_not_taken() {
    blocks("before", |tape, x| tape.select(&MASK, x, 0.0).exp().sum());
    blocks("after", |tape, x| tape.select(&MASK, x.exp(), 0.0).sum());
    blocks("other branch", |tape, x| tape.select(Mask::from(&MASK).negate(), 1.0, x.exp().log()).sum());
}

/// Catches a scalar that sums its cotangents over masked tokens, a product that mixes rows, and a logsumexp that does.
#[test]
fn gotcha_08_through_shared_operands() {
    blocks("scalar", |tape, x| {
        let beta = tape.input("beta", 0.3);
        let root = (beta * x).masked_sum(&MASK);
        assert!(tape.backward(root).expect("sound").get(beta).expect("an input").sum().is_finite());
        root
    });
    blocks("logsumexp", |_, x| (x.repeat_last(3) * 2.0).logsumexp().masked_sum(&MASK));
    blocks("matmul", |tape, x| {
        let weights = tape.input("weights", [[0.5, -1.0], [2.0, 0.25]]);
        let root = x.repeat_last(2).matmul(weights).masked_sum(&MASK);
        let gradients = tape.backward(root).expect("sound");
        assert!(gradients.get(weights).expect("an input").iter().all(|g| g.is_finite()));
        root
    });
    blocks("matmul, second factor", |tape, x| {
        let weights = tape.input("weights", [[0.5, -1.0]]);
        let root = weights.matmul(x.repeat_last(2).transpose()).masked_sum(&MASK);
        let gradients = tape.backward(root).expect("sound");
        assert!(gradients.get(weights).expect("an input").iter().all(|g| g.is_finite()));
        root
    });
    blocks("index_select", |_, x| x.exp().index_select(&[2, 0]).sum());
}

/// Catches 0 / 0: an empty completion, a batch with nothing supervised.
#[test]
fn gotcha_05_a_mean_over_nothing_is_zero() {
    let tape = Tape::with_offsets(&[0, 2, 2, 3]);
    let x = tape.input("x", [1.0, f64::NAN, 3.0]);
    let per_sequence = x.seq_mean(&[1, 0, 0]);
    assert_eq!(per_sequence.to_vec().expect("sound"), [1.0, 0.0, 0.0]);
    let root = per_sequence.sum() + x.masked_mean(&[0, 0, 0]) + tape.constant(Vec::new()).mean();
    assert_eq!(root.scalar().expect("sound"), 1.0);
    assert_eq!(tape.backward(root).expect("sound").get(x).expect("an input").as_slice(), Some(&[1.0, 0.0, 0.0][..]));
}

/// Catches the opposite mistake: NaN that disappears although no mask covers it (Rust's `f64::max` would drop it).
#[test]
fn an_unmasked_nan_is_reported() {
    let tape = Tape::new();
    let x = tape.input("x", [1.0, f64::NAN]);
    let results = [
        x.max(0.0),
        x.min(0.0),
        tape.constant(0.0).max(x),
        tape.constant(0.0).min(x),
        x.clamp(-1.0, 1.0),
        x.relu(),
        x.abs(),
        x.softplus(),
        x.log_sigmoid(),
        x.sigmoid(),
        x.tanh(),
        x.log1mexp(),
        x.sort(),
        x * 0.0,
    ];
    for result in results {
        assert!(result.to_vec().expect("sound")[1].is_nan(), "{result:?}");
        let root = result.sum();
        assert!(root.scalar().expect("sound").is_nan(), "{result:?}");
    }
    let gradients = tape.backward(x.max(0.0).sum()).expect("sound");
    assert!(gradients.get(x).expect("an input")[[1]].is_nan());
    assert!(tape.constant([f64::NAN, 1.0]).logsumexp().scalar().expect("sound").is_nan());
}
