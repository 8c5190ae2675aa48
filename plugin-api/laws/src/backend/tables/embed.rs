//! Embeddings.

use crate::backend::{case::Case, tensor::Tensor};
use plugin_api::backend::ops::Embedding;
use telos_random::SplitMix64;

pub fn cases(rng: &mut SplitMix64) -> Vec<Case> {
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
