//! The head. Inputs are multiples of 1/8, so that equal logits are equal on every backend and `top1` has one right result.

pub mod candidates;
pub mod divergence;
pub mod sample;

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
        ops::{HeadBackward, HeadFused, HeadStats},
    },
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[HeadStats::SPEC],
    cases: |rng, _, _| Ok(cases(rng)),
    rules: &[
        Rule {
            number: 9,
            forward: HeadStats::SPEC,
            backward: HeadBackward::SPEC,
            saved: &[("lse", "lse"), ("entropy", "entropy"), ("logits", "logits")],
            ..PLAIN
        },
        Rule { number: 10, forward: HeadStats::SPEC, backward: HeadFused::SPEC, ..PLAIN },
    ],
    wrong: Wrong {
        indices: &[
            ("head_stats", "targets", Some("w")),
            ("head_backward", "targets", Some("w")),
            ("head_fused", "targets", Some("w")),
        ],
        values: &[
            ("head_stats", "temperature", 0.0, &[Code::INVALID_ARGUMENT]),
            ("head_backward", "temperature", 0.0, &[Code::INVALID_ARGUMENT]),
            ("head_fused", "temperature", -1.0, &[Code::INVALID_ARGUMENT]),
        ],
        companions: &[("head_backward", "entropy")],
        ..Wrong::NONE
    },
};

fn case(rng: &mut SplitMix64, name: &str, op: HeadStats, (tokens, dim, vocab): (usize, usize, usize)) -> Case {
    let case = Case::new(format!("{tokens} x {dim}, {vocab} tokens{name}"), &op)
        .with("x", Tensor::grid(rng, tokens, dim))
        .with("w", Tensor::grid(rng, vocab, dim))
        .with("targets", Tensor::indices(rng, tokens, vocab))
        .with("bias", Tensor::grid(rng, 1, vocab));
    let size = |dim: &str| match dim {
        "N" => tokens,
        "V" => vocab,
        _ => 1,
    };
    // Every statistic and the logits.
    let outputs = HeadStats::SPEC.outputs.iter();
    outputs.fold(case, |case, spec| case.out(spec.name, size(spec.dims[0]), size(spec.dims[1])))
}

fn cases(rng: &mut SplitMix64) -> Vec<Case> {
    let plain = HeadStats::default();
    let all = HeadStats { temperature: 0.7, softcap: 2.5, scale: 1.25, ..plain };
    let mut cases = vec![case(rng, ", temperature, softcap and scale", all, (3, 5, 9)).vary()];
    for shape in [(0, 4, 7), (1, 1, 1), (2, 16, 5000), (3, 5, 32_003), (33, 8, 65), (130, 3, 17)] {
        cases.push(case(rng, "", plain, shape));
    }
    cases.push(case(rng, ", temperature", HeadStats { temperature: 2.5, ..plain }, (4, 6, 11)));
    cases.push(case(rng, ", softcap", HeadStats { softcap: 1.5, ..plain }, (4, 6, 11)));
    cases.push(case(rng, ", scale", HeadStats { scale: -0.5, ..plain }, (4, 6, 11)));
    // Logits of several hundred: without subtracting the largest, an exponential overflows.
    let large = HeadStats { scale: 200.0, ..plain };
    cases.push(case(rng, ", huge logits", large, (3, 4, 6)));
    cases
}
