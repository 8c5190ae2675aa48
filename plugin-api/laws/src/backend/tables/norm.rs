//! Norms.

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
        ops::{Norm, NormBackward, NormKind},
    },
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[Norm::SPEC],
    cases: |rng, _, _| Ok(cases(rng)),
    rules: &[Rule {
        number: 2,
        forward: Norm::SPEC,
        backward: NormBackward::SPEC,
        saved: &[("sum", "x"), ("stats", "stats")],
        cotangents: &[("y", "dy"), ("sum", "dsum")],
        gradients: &[("x", "dx"), ("residual", "dx"), ("weight", "dweight"), ("bias", "dbias")],
        ..PLAIN
    }],
    wrong: Wrong {
        values: &[("norm", "kind", 99.0, &[Code::UNSUPPORTED]), ("norm_backward", "kind", 99.0, &[Code::UNSUPPORTED])],
        ..Wrong::NONE
    },
};

fn case(rng: &mut SplitMix64, name: &str, op: Norm, tokens: usize, dim: usize) -> Case {
    // Away from zero, so that a forgotten mean is detected.
    let x = Tensor::generate(tokens, dim, || 2.0 + rng.normal());
    Case::new(format!("{:?}, {tokens} x {dim}{name}", op.kind), &op)
        .with("x", x)
        .with("residual", Tensor::normal(rng, tokens, dim))
        .with("weight", Tensor::normal(rng, 1, dim))
        .with("bias", Tensor::normal(rng, 1, dim))
        .out("y", tokens, dim)
        .out("sum", tokens, dim)
        .out("stats", tokens, 2)
}

fn cases(rng: &mut SplitMix64) -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [NormKind::RMS, NormKind::LAYER] {
        let op = Norm { kind, eps: 1e-2, ..Norm::default() };
        cases.push(case(rng, ", large eps", op, 3, 7).vary());
        for (tokens, dim) in [(0, 8), (1, 1), (1, 8), (17, 48), (5, 130), (3, 1025), (400, 5)] {
            cases.push(case(rng, "", Norm { eps: 1e-5, ..op }, tokens, dim));
        }
        cases.push(case(rng, ", offset gain", Norm { weight_offset: 1.0, ..op }, 5, 12).vary());
    }
    cases
}
