//! Log-probabilities of several ids per token, and the most probable ids. Inputs are multiples of 1/8, so that equal logits are
//! equal on every backend and the most probable ids have one right order.

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
        ops::{HeadCandidates, HeadCandidatesBackward, HeadTopk},
    },
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[HeadCandidates::SPEC, HeadTopk::SPEC],
    cases: |rng, _, _| Ok(cases(rng)),
    rules: &[Rule {
        number: 13,
        forward: HeadCandidates::SPEC,
        backward: HeadCandidatesBackward::SPEC,
        saved: &[("lse", "lse"), ("tail", "tail")],
        ..PLAIN
    }],
    wrong: Wrong {
        indices: &[("head_candidates", "ids", Some("w")), ("head_candidates_backward", "ids", Some("w"))],
        values: &[
            ("head_candidates", "temperature", 0.0, &[Code::INVALID_ARGUMENT]),
            ("head_candidates_backward", "temperature", -1.0, &[Code::INVALID_ARGUMENT]),
            ("head_topk", "temperature", 0.0, &[Code::INVALID_ARGUMENT]),
        ],
        companions: &[("head_candidates_backward", "tail")],
        distinct: &[("head_candidates", "ids"), ("head_candidates_backward", "ids")],
        ..Wrong::NONE
    },
};

/// Tokens, width, vocabulary, ids per token.
type Shape = (usize, usize, usize, usize);

/// Distinct ids of each token, in random order.
fn distinct(rng: &mut SplitMix64, (tokens, _, vocab, count): Shape) -> Tensor {
    let mut data = Vec::with_capacity(tokens * count);
    for _ in 0..tokens {
        let mut ids: Vec<usize> = (0..vocab).collect();
        for at in 0..count {
            ids.swap(at, at + rng.below(vocab - at));
        }
        data.extend(ids[..count].iter().map(|&id| id as f64));
    }
    Tensor { rows: tokens, cols: count, data, dtype: None }
}

fn named(name: &str, (tokens, dim, vocab, count): Shape) -> String {
    format!("{count} ids of {tokens} x {dim}, {vocab} tokens{name}")
}

fn head(rng: &mut SplitMix64, case: Case, (tokens, dim, vocab, count): Shape) -> Case {
    case.with("x", Tensor::grid(rng, tokens, dim))
        .with("w", Tensor::grid(rng, vocab, dim))
        .with("bias", Tensor::grid(rng, 1, vocab))
        .out("logp", tokens, count)
        .out("tail", 1, tokens)
}

fn candidates(rng: &mut SplitMix64, name: &str, op: HeadCandidates, shape: Shape) -> Case {
    let case = head(rng, Case::new(named(name, shape), &op), shape);
    case.with("ids", distinct(rng, shape)).out("lse", 1, shape.0)
}

fn topk(rng: &mut SplitMix64, name: &str, op: HeadTopk, shape: Shape) -> Case {
    head(rng, Case::new(named(name, shape), &op), shape).out("ids", shape.0, shape.3)
}

fn cases(rng: &mut SplitMix64) -> Vec<Case> {
    let plain = HeadCandidates::default();
    let most = HeadTopk::default();
    let mut cases = vec![
        candidates(
            rng,
            ", temperature, softcap and scale",
            HeadCandidates { temperature: 0.7, softcap: 2.5, scale: 1.25, ..plain },
            (3, 5, 9, 4),
        )
        .vary(),
        topk(
            rng,
            ", temperature, softcap and scale",
            HeadTopk { temperature: 0.7, softcap: 2.5, scale: 1.25, ..most },
            (3, 5, 9, 4),
        )
        .vary(),
    ];
    for shape in [
        (0, 4, 7, 3),
        (2, 4, 7, 0),
        (1, 1, 2, 1),
        (33, 8, 65, 64),
        (130, 3, 17, 1),
        (2, 16, 5000, 700),
        (3, 5, 32_003, 20),
    ] {
        cases.push(candidates(rng, "", plain, shape));
        cases.push(topk(rng, "", most, shape));
    }
    // The tail is minus infinity.
    for shape in [(1, 1, 1, 1), (3, 2, 6, 6)] {
        cases.push(candidates(rng, ", the whole vocabulary, extremes", plain, shape));
        cases.push(topk(rng, ", the whole vocabulary", most, shape));
    }
    // The only other id has a probability between almost 0 and almost 1: no difference from 1 gives the tail.
    let large = HeadCandidates { scale: 200.0, ..plain };
    cases.push(candidates(rng, ", extremes", large, (12, 4, 6, 5)));
    cases.push(candidates(rng, ", small tails", HeadCandidates { scale: 8.0, ..plain }, (12, 4, 6, 5)));
    cases.push(topk(rng, ", huge logits", HeadTopk { scale: 200.0, ..most }, (3, 4, 6, 2)));
    cases.push(topk(rng, ", reversed", HeadTopk { scale: -0.5, ..most }, (4, 6, 11, 3)));
    cases.push(candidates(rng, ", temperature", HeadCandidates { temperature: 2.5, ..plain }, (4, 6, 11, 2)));
    cases.push(topk(rng, ", temperature", HeadTopk { temperature: 2.5, ..most }, (4, 6, 11, 2)));
    // Every logit is equal: the lowest ids, in order.
    let tied = topk(rng, ", all equal", most, (2, 3, 40, 7));
    cases.push(tied.with("x", Tensor::generate(2, 3, || 0.0)).with("bias", Tensor::generate(1, 40, || 0.25)));
    cases
}
