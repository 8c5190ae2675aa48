//! Rotary embedding.

use crate::backend::{case::Case, tensor::Tensor};
use plugin_api::backend::ops::Rotary;
use telos_random::SplitMix64;

/// Positions in the tables.
const POSITIONS: usize = 9;

pub fn cases(rng: &mut SplitMix64) -> Vec<Case> {
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
