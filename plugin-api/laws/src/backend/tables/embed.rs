//! Embeddings.

use crate::backend::{
    case::Case,
    family::{Family, Wrong},
    rules::{PLAIN, Rule},
    tensor::Tensor,
};
use plugin_api::backend::{
    Op,
    ops::{Embedding, EmbeddingBackward},
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[Embedding::SPEC],
    cases: |rng, _, _| Ok(cases(rng)),
    rules: &[Rule { number: 1, forward: Embedding::SPEC, backward: EmbeddingBackward::SPEC, ..PLAIN }],
    wrong: Wrong {
        indices: &[
            ("embedding", "ids", Some("table")),
            ("embedding", "positions", Some("position_table")),
            ("embedding_backward", "ids", Some("dtable")),
        ],
        companions: &[("embedding", "positions"), ("embedding", "position_table")],
        ..Wrong::NONE
    },
};

fn cases(rng: &mut SplitMix64) -> Vec<Case> {
    let mut cases = Vec::new();
    for (tokens, vocab, dim) in [(9, 7, 6), (0, 5, 4), (1, 1, 1), (64, 5000, 8), (40, 32_003, 5), (200, 3, 33)] {
        let case =
            Case::new(format!("{tokens} tokens, {vocab} x {dim}"), &Embedding { scale: 6.5, ..Embedding::default() })
                .with("ids", Tensor::indices(rng, tokens, vocab))
                .with("table", Tensor::normal(rng, vocab, dim))
                .with("positions", Tensor::indices(rng, tokens, 11))
                .with("position_table", Tensor::normal(rng, 11, dim))
                .out("y", tokens, dim);
        cases.push(if tokens == 9 { case.vary() } else { case });
    }
    cases
}
