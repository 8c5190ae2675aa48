//! Activations, plain and gated.

use crate::backend::{
    case::Case,
    family::{Family, Wrong},
    rules::{PLAIN, Rule},
    tensor::Tensor,
};
use plugin_api::{
    Code,
    backend::{
        Op,
        ops::{Activation, ActivationBackward, ActivationKind, Glu, GluBackward},
    },
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[Activation::SPEC, Glu::SPEC],
    cases: |rng, _, _| Ok(cases(rng)),
    rules: &[
        Rule { number: 7, forward: Activation::SPEC, backward: ActivationBackward::SPEC, ..PLAIN },
        Rule {
            number: 8,
            forward: Glu::SPEC,
            backward: GluBackward::SPEC,
            packed: &[&["gate", "up"], &["dgate", "dup"]],
            ..PLAIN
        },
    ],
    wrong: Wrong {
        values: &[
            ("activation", "kind", 99.0, &[Code::UNSUPPORTED]),
            ("activation_backward", "kind", 99.0, &[Code::UNSUPPORTED]),
            ("glu", "kind", 99.0, &[Code::UNSUPPORTED]),
            ("glu_backward", "kind", 99.0, &[Code::UNSUPPORTED]),
        ],
        ..Wrong::NONE
    },
};

/// Values at which an unguarded exponential, cube or quotient fails.
fn extremes() -> Tensor {
    Tensor::row([0.0, -0.0, 1e-3, -1e-3, 5.0, -5.0, 20.0, -20.0, 100.0, -100.0, 1e4, -1e4])
}

fn cases(rng: &mut SplitMix64) -> Vec<Case> {
    let mut cases = Vec::new();
    for &(kind, name) in ActivationKind::ALL {
        let plain = Activation { kind, ..Activation::default() };
        for (rows, cols) in [(0, 3), (1, 1), (6, 33), (3, 1000)] {
            let name = format!("{name}, {rows} x {cols}");
            let x = Tensor::normal(rng, rows, cols).times(2.0);
            cases.push(Case::new(&name, &plain).with("x", x).out("y", rows, cols));
            cases.push(
                Case::new(&name, &Glu { kind, ..Glu::default() })
                    .with("gate", Tensor::normal(rng, rows, cols).times(2.0))
                    .with("up", Tensor::normal(rng, rows, cols))
                    .out("y", rows, cols)
                    .packed(if rows == 6 { &[&["gate", "up"]] } else { &[] }),
            );
        }
        cases.push(Case::new(format!("{name}, extremes"), &plain).with("x", extremes()).out("y", 1, 12));
        cases.push(
            Case::new(format!("{name}, extremes"), &Glu { kind, ..Glu::default() })
                .with("gate", extremes())
                .with("up", Tensor::normal(rng, 1, 12))
                .out("y", 1, 12),
        );
    }
    cases
}
