//! Linear layers.

use crate::backend::{
    case::Case,
    family::{Family, Wrong},
    rules::{PLAIN, Rule},
    tensor::Tensor,
};
use plugin_api::backend::{
    Op,
    ops::{Linear, LinearBackwardInput, LinearBackwardWeight},
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[Linear::SPEC, LinearBackwardInput::SPEC],
    cases: |rng, _, _| Ok(cases(rng)),
    rules: &[
        Rule { number: 3, forward: Linear::SPEC, backward: LinearBackwardInput::SPEC, ..PLAIN },
        Rule { number: 4, forward: Linear::SPEC, backward: LinearBackwardWeight::SPEC, ..PLAIN },
    ],
    wrong: Wrong::NONE,
};

const SHAPES: &[(usize, usize, usize)] = &[
    (5, 7, 3),
    (0, 3, 4),
    (1, 1, 1),
    (17, 48, 33),
    (64, 64, 64),
    (3, 130, 5),
    (2, 8, 5000),
    (2, 5, 32_003),
    (129, 9, 65),
];

fn cases(rng: &mut SplitMix64) -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, &(tokens, inputs, outputs)) in SHAPES.iter().enumerate() {
        let name = format!("{tokens} x {inputs} to {outputs}");
        let case = Case::new(&name, &Linear::default())
            .with("x", Tensor::normal(rng, tokens, inputs))
            .with("w", Tensor::normal(rng, outputs, inputs))
            .with("bias", Tensor::normal(rng, 1, outputs))
            .out("y", tokens, outputs);
        cases.push(if i == 0 { case.vary() } else { case });
        cases.push(
            Case::new(
                format!("accumulating, {name}"),
                &LinearBackwardInput { accumulate: true, ..LinearBackwardInput::default() },
            )
            .with("dy", Tensor::normal(rng, tokens, outputs))
            .with("w", Tensor::normal(rng, outputs, inputs))
            .with("dx", Tensor::normal(rng, tokens, inputs)),
        );
    }
    cases
}
