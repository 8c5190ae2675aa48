//! Decoding with a cache. Unused rows of a slot are NaN, so that a masked product that reads them is detected.

use crate::backend::{
    case::Case,
    family::{Family, Wrong},
    tensor::Tensor,
};
use plugin_api::{
    Code,
    backend::{Op, ops::DecodeAttention},
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[DecodeAttention::SPEC],
    cases: |rng, _, _| Ok(cases(rng)),
    rules: &[],
    wrong: Wrong {
        indices: &[("decode_attention", "slots", None), ("decode_attention", "lengths", None)],
        values: &[
            ("decode_attention", "capacity", 0.0, &[Code::INVALID_ARGUMENT, Code::INDEX]),
            ("decode_attention", "window", -1.0, &[Code::INVALID_ARGUMENT]),
        ],
        ..Wrong::NONE
    },
};

const CAPACITY: usize = 6;
const SLOTS: usize = 5;

/// A cache of slots with `capacity` rows each, filled up to `lengths`.
fn cache(rng: &mut SplitMix64, capacity: usize, width: usize, slots: &[usize], lengths: &[usize]) -> Tensor {
    let mut cache = Tensor::garbage(SLOTS * capacity, width);
    for (slot, length) in slots.iter().zip(lengths) {
        let start = slot * capacity * width;
        cache.data[start..start + length * width].iter_mut().for_each(|x| *x = rng.normal());
    }
    cache
}

fn case(rng: &mut SplitMix64, name: &str, op: DecodeAttention, slots: &[usize], lengths: &[usize]) -> Case {
    let (q, k) = ((op.heads * op.head_dim) as usize, (op.kv_heads * op.head_dim) as usize);
    let (rows, capacity) = (slots.len(), op.capacity as usize);
    Case::new(format!("{rows} rows, {}/{} heads{name}", op.heads, op.kv_heads), &op)
        .with("q", Tensor::normal(rng, rows, q))
        .with("k", Tensor::normal(rng, rows, k))
        .with("v", Tensor::normal(rng, rows, k))
        .with("slots", Tensor::row(slots.iter().map(|&s| s as f64)))
        .with("lengths", Tensor::row(lengths.iter().map(|&l| l as f64)))
        .with("k_cache", cache(rng, capacity, k, slots, lengths))
        .with("v_cache", cache(rng, capacity, k, slots, lengths))
        .out("y", rows, q)
}

fn cases(rng: &mut SplitMix64) -> Vec<Case> {
    let capacity = CAPACITY as i64;
    let plain =
        DecodeAttention { heads: 4, kv_heads: 2, head_dim: 6, scale: 0.4, capacity, ..DecodeAttention::default() };
    let mut cases = Vec::new();
    for (name, window, softcap) in
        [("", 0, 0.0), (", window 1", 1, 0.0), (", window 3", 3, 0.0), (", window 99", 99, 0.0), (", softcap", 0, 1.5)]
    {
        let op = DecodeAttention { window, softcap, ..plain };
        cases.push(case(rng, name, op, &[3, 0, 4], &[0, CAPACITY - 1, 2]));
    }
    cases.push(case(rng, ", no row", plain, &[], &[]));
    cases.push(case(rng, ", every slot", plain, &[4, 3, 2, 1, 0], &[1, 2, 3, 4, 5]));
    let long = DecodeAttention { capacity: 600, ..plain };
    cases.push(case(rng, ", one long", long, &[1, 3], &[577, 2]));
    cases.push(case(rng, ", one long, window 130", DecodeAttention { window: 130, ..long }, &[4], &[599]));
    for (heads, kv_heads, head_dim) in [(1, 1, 1), (6, 1, 5), (3, 3, 16)] {
        let op = DecodeAttention { heads, kv_heads, head_dim, ..plain };
        cases.push(case(rng, "", op, &[1, 2], &[4, 1]).packed(&[&["q", "k", "v"]]));
    }
    cases
}
