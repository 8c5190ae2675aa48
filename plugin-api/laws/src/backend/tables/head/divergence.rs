//! The divergence between two heads, at both ends of the weight and between them.

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
        ops::{HeadDivergence, HeadDivergenceBackward},
    },
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[HeadDivergence::SPEC],
    cases: |rng, _, _| Ok(cases(rng)),
    rules: &[Rule {
        number: 12,
        forward: HeadDivergence::SPEC,
        backward: HeadDivergenceBackward::SPEC,
        saved: &[("lse", "lse"), ("lse2", "lse2")],
        cotangents: &[("kl", "dkl")],
        ..PLAIN
    }],
    wrong: Wrong {
        values: &[
            ("head_divergence", "temperature", 0.0, &[Code::INVALID_ARGUMENT]),
            ("head_divergence", "weight", -0.1, &[Code::INVALID_ARGUMENT]),
            ("head_divergence", "weight", 1.1, &[Code::INVALID_ARGUMENT]),
            ("head_divergence", "weight", f64::NAN, &[Code::INVALID_ARGUMENT]),
            ("head_divergence_backward", "temperature", -1.0, &[Code::INVALID_ARGUMENT]),
            ("head_divergence_backward", "weight", 1.5, &[Code::INVALID_ARGUMENT]),
        ],
        ..Wrong::NONE
    },
};

/// Tokens, the two models' widths, and the vocabulary.
type Shape = (usize, usize, usize, usize);

fn case(rng: &mut SplitMix64, name: &str, op: HeadDivergence, (tokens, dim, dim2, vocab): Shape) -> Case {
    Case::new(format!("{tokens} x {dim} and {dim2}, {vocab} tokens, weight {}{name}", op.weight), &op)
        .with("x", Tensor::normal(rng, tokens, dim))
        .with("w", Tensor::normal(rng, vocab, dim))
        .with("x2", Tensor::normal(rng, tokens, dim2))
        .with("w2", Tensor::normal(rng, vocab, dim2))
        .with("bias", Tensor::normal(rng, 1, vocab))
        .with("bias2", Tensor::normal(rng, 1, vocab))
        .out("kl", 1, tokens)
        .out("lse", 1, tokens)
        .out("lse2", 1, tokens)
}

fn cases(rng: &mut SplitMix64) -> Vec<Case> {
    let plain = HeadDivergence::default();
    let all = HeadDivergence { temperature: 0.7, softcap: 2.5, scale: 1.25, softcap2: 3.5, scale2: -0.75, ..plain };
    let mut cases = Vec::new();
    for weight in [0.0, 0.3, 1.0] {
        let of = |op: HeadDivergence| HeadDivergence { weight, ..op };
        let name = ", temperature, softcaps and scales";
        let filled = case(rng, name, of(all), (3, 5, 4, 9));
        cases.push(if weight == 0.3 { filled.vary() } else { filled });
        for shape in [(0, 4, 3, 7), (1, 1, 1, 1), (2, 16, 8, 5000), (33, 8, 3, 65), (130, 3, 5, 17)] {
            cases.push(case(rng, "", of(plain), shape));
        }
        cases.push(case(rng, ", temperature", of(HeadDivergence { temperature: 2.5, ..plain }), (4, 6, 2, 11)));
        cases.push(case(rng, ", softcap", of(HeadDivergence { softcap: 1.5, ..plain }), (4, 6, 2, 11)));
        // Probabilities of either model that are 0 in every dtype.
        let large = HeadDivergence { scale: 200.0, scale2: 300.0, ..plain };
        cases.push(case(rng, ", extremes", of(large), (4, 3, 2, 6)));
        // Equal models: 0, and no gradient.
        let same = case(rng, ", equal", of(plain), (3, 4, 4, 8));
        let copied = |name: &str| same.operand(name).cloned().unwrap_or_else(|| Tensor::row([]));
        let (x, w, bias) = (copied("x"), copied("w"), copied("bias"));
        cases.push(same.with("x2", x).with("w2", w).with("bias2", bias));
    }
    cases.push(case(rng, "", HeadDivergence { weight: 0.5, ..plain }, (3, 5, 7, 32_003)));
    cases
}
