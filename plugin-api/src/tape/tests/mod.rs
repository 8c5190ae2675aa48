//! The tape's laws, one file each; every test names the wrong implementation that it catches.

mod detached;
mod errors;
mod gradients;
mod masking;
mod mistakes;
mod stability;
mod structure;
mod values;

use super::{Tape, Var};

/// What a test builds on a tape.
type Build = for<'t> fn(&'t Tape, &[Var<'t>]) -> Var<'t>;

/// A scalar that depends on every element of `x` with another weight, so that exchanged or shared gradients are detected.
fn weighted<'t>(tape: &'t Tape, x: Var<'t>) -> Var<'t> {
    let Ok(value) = x.value() else { return x };
    let mut position = 0.0_f64;
    let weights = value.mapv(|_| {
        position += 1.0;
        0.4 + (2.3 * position).sin()
    });
    (x * tape.constant(weights)).sum()
}

/// Value and gradient of `weighted(build(x))` for a vector `x`.
fn value_and_gradient(x: &[f64], build: Build) -> (f64, Vec<f64>) {
    let tape = Tape::new();
    let input = tape.input("x", x);
    let root = weighted(&tape, build(&tape, &[input]));
    let gradients = tape.backward(root).expect("a sound tape");
    (root.scalar().expect("a scalar"), gradients.get(input).expect("an input").iter().copied().collect())
}
