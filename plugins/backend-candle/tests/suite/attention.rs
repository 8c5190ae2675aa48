//! Rotary, attention forward and backward, and decoding, at lengths at which blocks start and end.

use crate::rig::{Rig, each_layout};
use plugin_api::backend::{View, ops::*};

#[test]
fn rotary_turns_and_turns_back_in_both_pairings() {
    each_layout(|r| {
        let (head_dim, pairs) = (24, 8);
        let (x, y) = (r.mat(700, 3 * head_dim), r.mat(700, 3 * head_dim));
        let positions = r.ids(700, 30);
        let (cos, sin) = (r.mat(30, pairs), r.mat(30, pairs));
        for interleaved in [false, true] {
            for inverse in [false, true] {
                let head_dim = head_dim as i64;
                r.check(Rotary { x, positions, cos, sin, y, head_dim, interleaved, inverse });
                r.check(Rotary { x: y, positions, cos, sin, y, head_dim, interleaved, inverse });
            }
        }
    });
}

fn attention_case(r: &mut Rig, lengths: &[usize], heads: usize, kv_heads: usize, head_dim: usize, base: Attention) {
    let n: usize = lengths.iter().sum();
    let mut ends = vec![0i32];
    lengths.iter().for_each(|len| ends.push(ends[ends.len() - 1] + *len as i32));
    let offsets = r.ints(&ends);
    let prefixes: Vec<i32> = lengths.iter().map(|len| (*len / 2) as i32).collect();
    let prefix = (base.mask == MaskKind::PREFIX).then(|| r.ints(&prefixes));
    // One projection's output holds queries, keys and values side by side.
    let (q_cols, kv_cols) = (heads * head_dim, kv_heads * head_dim);
    let fused = r.mat(n, q_cols + 2 * kv_cols);
    let part =
        |fused: View, from: usize, cols: usize| View { offset: fused.offset + from as u64, cols: cols as u64, ..fused };
    let parts = |f: View| [part(f, 0, q_cols), part(f, q_cols, kv_cols), part(f, q_cols + kv_cols, kv_cols)];
    let [q, k, v] = parts(fused);
    let (y, dy, lse) = (r.mat(n, q_cols), r.mat(n, q_cols), r.mat(n, heads));
    let (heads, kv_heads, head_dim) = (heads as i64, kv_heads as i64, head_dim as i64);
    let scale = 0.3;
    let op = Attention { q, k, v, offsets, prefix, y, heads, kv_heads, head_dim, scale, ..base };
    r.check(op);
    r.check(Attention { lse: Some(lse), ..op });
    let d = r.mat(fused.rows as usize, fused.cols as usize);
    let [dq, dk, dv] = parts(d);
    let Attention { mask, window, softcap, .. } = base;
    r.check(AttentionBackward {
        q,
        k,
        v,
        y,
        lse,
        dy,
        offsets,
        prefix,
        dq,
        dk,
        dv,
        heads,
        kv_heads,
        head_dim,
        scale,
        mask,
        window,
        softcap,
    });
}

#[test]
fn attention_matches_for_every_mask_across_block_ends() {
    each_layout(|r| {
        r.tolerance = 2e-5;
        for (mask, _) in MaskKind::ALL.iter().copied() {
            for window in [0, 1, 9, 70] {
                attention_case(r, &[1, 64, 0, 65, 150], 2, 1, 8, Attention { mask, window, ..Attention::default() });
            }
        }
    });
}

#[test]
fn attention_matches_with_grouped_heads_and_soft_cap() {
    each_layout(|r| {
        r.tolerance = 2e-5;
        for softcap in [0.0, 2.0] {
            attention_case(r, &[33, 7], 6, 2, 16, Attention { softcap, ..Attention::default() });
            attention_case(r, &[130], 3, 3, 5, Attention { softcap, window: 20, ..Attention::default() });
        }
    });
}

#[test]
fn decoding_appends_and_attends_to_its_own_slot() {
    each_layout(|r| {
        r.tolerance = 1e-5;
        let (capacity, kv_cols) = (40, 2 * 12);
        let (k_cache, v_cache) = (r.mat(5 * capacity, kv_cols), r.mat(5 * capacity, kv_cols));
        let (slots, lengths) = (r.ints(&[3, 0, 4]), r.ints(&[0, 39, 17]));
        for (window, softcap) in [(0, 0.0), (6, 0.0), (0, 1.5)] {
            let (q, k, v, y) = (r.mat(3, 4 * 12), r.mat(3, kv_cols), r.mat(3, kv_cols), r.mat(3, 4 * 12));
            let capacity = capacity as i64;
            let (heads, kv_heads, head_dim, scale) = (4, 2, 12, 0.4);
            r.check(DecodeAttention {
                q,
                k,
                v,
                slots,
                lengths,
                y,
                k_cache,
                v_cache,
                heads,
                kv_heads,
                head_dim,
                scale,
                capacity,
                window,
                softcap,
            });
        }
    });
}
