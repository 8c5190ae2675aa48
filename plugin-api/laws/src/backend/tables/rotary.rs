//! Rotary embedding.

use crate::backend::{
    case::Case,
    family::{Family, Wrong},
    rules::{PLAIN, Rule},
    tensor::Tensor,
};
use plugin_api::{
    Code,
    backend::{Op, ops::Rotary},
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[Rotary::SPEC],
    cases: |rng, _, _| Ok(cases(rng)),
    rules: &[Rule {
        number: 5,
        forward: Rotary::SPEC,
        backward: Rotary::SPEC,
        cotangents: &[("y", "x")],
        gradients: &[("x", "y")],
        flips: Some("inverse"),
        ..PLAIN
    }],
    wrong: Wrong {
        indices: &[("rotary", "positions", Some("cos"))],
        values: &[
            ("rotary", "head_dim", 0.0, &[Code::INVALID_ARGUMENT, Code::SHAPE]),
            ("rotary", "head_dim", -8.0, &[Code::INVALID_ARGUMENT, Code::SHAPE]),
            ("rotary", "head_dim", 7.0, &[Code::INVALID_ARGUMENT, Code::SHAPE]),
        ],
        ..Wrong::NONE
    },
};

/// Positions in the tables.
const POSITIONS: usize = 9;

fn cases(rng: &mut SplitMix64) -> Vec<Case> {
    let mut cases = Vec::new();
    for (tokens, heads, head_dim, pairs) in
        [(5, 3, 8, 4), (0, 2, 4, 2), (1, 1, 2, 1), (6, 2, 10, 3), (40, 4, 16, 8), (601, 1, 6, 3)]
    {
        for interleaved in [false, true] {
            let op = Rotary { head_dim: head_dim as i64, interleaved, ..Rotary::default() };
            let angles = Tensor::normal(rng, POSITIONS, pairs);
            let table = |f: fn(f64) -> f64| {
                let mut next = angles.data.iter();
                Tensor::generate(POSITIONS, pairs, || next.next().map_or(0.0, |&a| f(a)))
            };
            let pairing = if interleaved { "adjacent pairs" } else { "halves" };
            cases.push(
                Case::new(format!("{tokens} tokens, {heads} heads of {head_dim}, {pairs} pairs, {pairing}"), &op)
                    .with("x", Tensor::normal(rng, tokens, heads * head_dim))
                    .with("positions", Tensor::indices(rng, tokens, POSITIONS))
                    .with("cos", table(f64::cos))
                    .with("sin", table(f64::sin))
                    .out("y", tokens, heads * head_dim),
            );
        }
    }
    cases
}
