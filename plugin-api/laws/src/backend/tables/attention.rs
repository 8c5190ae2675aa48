//! Attention: every mask with every window and cap on one packing, then packings and head counts.

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
        ops::{Attention, AttentionBackward, MaskKind},
    },
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[Attention::SPEC],
    cases: |rng, _, _| Ok(cases(rng)),
    rules: &[Rule {
        number: 6,
        forward: Attention::SPEC,
        backward: AttentionBackward::SPEC,
        saved: &[("y", "y"), ("lse", "lse")],
        packed: &[&["q", "k", "v"], &["dq", "dk", "dv"]],
        ..PLAIN
    }],
    wrong: Wrong {
        offsets: &[("attention", "offsets"), ("attention_backward", "offsets")],
        values: &[
            ("attention", "mask", 99.0, &[Code::UNSUPPORTED]),
            ("attention_backward", "mask", 99.0, &[Code::UNSUPPORTED]),
            ("attention", "window", -1.0, &[Code::INVALID_ARGUMENT]),
            ("attention_backward", "window", -1.0, &[Code::INVALID_ARGUMENT]),
            ("attention", "heads", 0.0, &[Code::INVALID_ARGUMENT, Code::SHAPE]),
        ],
        ..Wrong::NONE
    },
};

/// Sequences of several lengths, an empty one among them.
const MIXED: &[usize] = &[7, 1, 0, 12];

fn case(rng: &mut SplitMix64, name: String, op: Attention, lengths: &[usize]) -> Case {
    let tokens = lengths.iter().sum();
    let (q, k) = ((op.heads * op.head_dim) as usize, (op.kv_heads * op.head_dim) as usize);
    // A part of the sequence, no token, one token, more than the whole.
    let prefix = lengths.iter().enumerate().map(|(s, &length)| [length / 2, 0, 1, length + 1][s % 4] as f64);
    let case = Case::new(name, &op)
        .with("q", Tensor::normal(rng, tokens, q))
        .with("k", Tensor::normal(rng, tokens, k))
        .with("v", Tensor::normal(rng, tokens, k))
        .with("offsets", Tensor::offsets(lengths))
        .out("y", tokens, q)
        .out("lse", tokens, op.heads as usize);
    if op.mask == MaskKind::PREFIX { case.with("prefix", Tensor::row(prefix)) } else { case }
}

fn cases(rng: &mut SplitMix64) -> Vec<Case> {
    let plain = Attention { heads: 4, kv_heads: 2, head_dim: 8, scale: 0.4, ..Attention::default() };
    let mut cases = Vec::new();
    // Causal with a prefix: the prefix must be ignored, and it may be left out.
    let ignored = Tensor::row(MIXED.iter().map(|&length| length as f64));
    cases.push(case(rng, "causal, prefix ignored".into(), plain, MIXED).with("prefix", ignored).vary());
    for mask in [MaskKind::CAUSAL, MaskKind::BIDIRECTIONAL, MaskKind::PREFIX] {
        for window in [0, 1, 3, 1000] {
            for softcap in [0.0, 1.5] {
                let op = Attention { mask, window, softcap, ..plain };
                cases.push(case(rng, format!("{mask:?}, window {window}, softcap {softcap}"), op, MIXED));
            }
        }
    }
    let packings: &[(&str, &[usize])] = &[
        ("no sequence", &[]),
        ("one token", &[1]),
        ("empty sequences around", &[0, 3, 0, 0, 4, 0]),
        ("forty sequences of one", &[1; 40]),
        ("many short", &[2, 3, 1, 4, 2, 5, 3, 1, 1, 6, 2, 2, 3]),
        ("three hundred short", &[2, 3, 1, 4, 2, 5, 3, 1, 1, 6].repeat(30)),
        ("one long", &[131]),
    ];
    for (name, lengths) in packings {
        cases.push(case(rng, (*name).into(), plain, lengths));
        cases.push(case(rng, format!("{name}, packed"), plain, lengths).packed(&[&["q", "k", "v"]]));
    }
    // Longer than any block of a kernel, alone and after short ones.
    let small = Attention { heads: 2, kv_heads: 1, head_dim: 4, ..plain };
    cases.push(case(rng, "one of 600".into(), small, &[600]).packed(&[&["q", "k", "v"]]));
    cases.push(case(
        rng,
        "one of 515 among short ones, window 130".into(),
        Attention { window: 130, ..small },
        &[3, 515, 1],
    ));
    for (heads, kv_heads, head_dim) in [(1, 1, 4), (6, 1, 5), (3, 3, 16), (1, 1, 1), (2, 1, 64)] {
        let op = Attention { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f64).sqrt(), ..plain };
        let name = format!("{heads} heads, {kv_heads} key-value heads of {head_dim}");
        cases.push(case(rng, name, op, MIXED).packed(&[&["q", "k", "v"]]));
    }
    cases
}
