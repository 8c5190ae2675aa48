//! bf16 at sizes at which tiles, blocks, chunks and tasks start and end: compared with the reference, and bit for bit on 1, 2 and 3
//! threads. The contract's conformance table checks the rounding; its sizes are small.

use crate::rig::{self, Rig, each_layout};
use plugin_api::backend::ops::*;

/// A difference in the last place of f32 may round to the next bf16, and sums of many terms cancel.
const TOLERANCE: f64 = 0.008;

fn rounded(f: impl Fn(&mut Rig)) {
    each_layout(|r| {
        r.tolerance = TOLERANCE;
        f(r);
    });
}

#[test]
fn products_of_bf16_match_at_sizes_that_end_inside_tiles() {
    for (n, i, o) in [(1, 1, 1), (2, 7, 3), (1, 300, 500), (65, 33, 129), (257, 200, 385), (768, 128, 128)] {
        rounded(|r| {
            let (x, w, y) = (r.half_mat(n, i), r.half_mat(o, i), r.half_mat(n, o));
            let bias = Some(r.half_mat(1, o));
            r.check(Linear { x, w, bias: None, y });
            r.check(Linear { x, w, bias, y });
            let (dx, dy) = (r.half_mat(n, i), r.half_mat(n, o));
            r.check(LinearBackwardInput { dy, w, dx, accumulate: false });
            r.check(LinearBackwardInput { dy, w, dx, accumulate: true });
            let (dw, dbias) = (r.mat(o, i), r.some(1, o));
            r.check(LinearBackwardWeight { x, dy, dw, dbias: None });
            r.check(LinearBackwardWeight { x, dy, dw, dbias });
        });
    }
}

#[test]
fn rows_norms_and_units_of_bf16_match() {
    rounded(|r| {
        let ids = r.ids(800, 11);
        let (table, y) = (r.half_mat(11, 130), r.half_mat(800, 130));
        r.check(Embedding { ids, table, y, scale: 1.5, ..Embedding::default() });
        let dtable = r.mat(11, 130);
        r.check(EmbeddingBackward { ids, dy: y, dtable, scale: 1.5 });
        let gathered = r.half_mat(800, 130);
        r.check(GatherRows { x: table, index: ids, y: gathered });
        let (index, dx, dy) = (r.ids(800, 40), r.half_mat(40, 130), r.half_mat(800, 130));
        // Forty sums of twenty terms each: rounded once, not after each term.
        r.tolerance = 0.005;
        r.check(ScatterAddRows { index, dy, dx });
        r.tolerance = TOLERANCE;
        for kind in [NormKind::RMS, NormKind::LAYER] {
            let [x, y, total, residual, dy, dx] = [0; 6].map(|_| r.half_mat(600, 100));
            let (weight, bias) = (Some(r.half_mat(1, 100)), Some(r.half_mat(1, 100)));
            let (stats, dweight, dbias) = (r.mat(600, 2), r.some(1, 100), r.some(1, 100));
            let (residual, sum, eps) = (Some(residual), Some(total), 0.1);
            r.check(Norm { x, residual, weight, bias, y, sum, stats: Some(stats), kind, eps, weight_offset: 1.0 });
            let back = NormBackward { x: total, stats, dy, dx, weight, kind, weight_offset: 1.0, ..Default::default() };
            r.check(NormBackward { dsum: residual, dweight, dbias, ..back });
            r.check(NormBackward { dy: dx, ..back });
        }
        let [gate, up, dy, y, dgate, dup] = [0; 6].map(|_| r.half_mat(45, 1000));
        for (kind, _) in ActivationKind::ALL.iter().copied() {
            r.check(Glu { gate, up, y, kind });
            r.check(GluBackward { gate, up, dy, dgate, dup, kind });
            r.check(ActivationBackward { x: gate, dy, dx: y, kind });
            r.check(Activation { x: gate, y, kind });
        }
    });
}

#[test]
fn attention_of_bf16_matches_across_blocks() {
    for (lengths, head_dim) in [(&[1, 63, 64, 65][..], 16), (&[130, 300], 24), (&[260], 64)] {
        rounded(|r| {
            let n: usize = lengths.iter().sum();
            let mut ends = vec![0i32];
            lengths.iter().for_each(|len| ends.push(ends[ends.len() - 1] + *len as i32));
            let offsets = r.ints(&ends);
            let (q_cols, kv_cols) = (4 * head_dim, 2 * head_dim);
            let [q, y, dy, dq] = [0; 4].map(|_| r.half_mat(n, q_cols));
            let [k, v, dk, dv] = [0; 4].map(|_| r.half_mat(n, kv_cols));
            let lse = r.mat(n, 4);
            let (heads, kv_heads, head_dim, scale) = (4, 2, head_dim as i64, 0.2);
            for (window, softcap) in [(0, 0.0), (70, 5.0)] {
                let op = Attention {
                    q,
                    k,
                    v,
                    offsets,
                    y,
                    heads,
                    kv_heads,
                    head_dim,
                    scale,
                    window,
                    softcap,
                    ..Default::default()
                };
                r.check(op);
                r.check(Attention { lse: Some(lse), ..op });
                let op = AttentionBackward { q, k, v, y, lse, dy, offsets, dq, dk, dv, ..Default::default() };
                r.check(AttentionBackward { heads, kv_heads, head_dim, scale, window, softcap, ..op });
            }
        });
    }
}

#[test]
fn rotary_and_decoding_of_bf16_match() {
    rounded(|r| {
        let (x, y, positions) = (r.half_mat(700, 3 * 24), r.half_mat(700, 3 * 24), r.ids(700, 30));
        let (cos, sin) = (r.mat(30, 8), r.mat(30, 8));
        for (interleaved, inverse) in [(false, false), (false, true), (true, false), (true, true)] {
            r.check(Rotary { x, positions, cos, sin, y, head_dim: 24, interleaved, inverse });
        }
        let [k_cache, v_cache] = [0; 2].map(|_| r.half_mat(5 * 40, 2 * 12));
        let (slots, lengths) = (r.ints(&[3, 0, 4]), r.ints(&[0, 39, 17]));
        let [q, y] = [0; 2].map(|_| r.half_mat(3, 4 * 12));
        let [k, v] = [0; 2].map(|_| r.half_mat(3, 2 * 12));
        let (heads, kv_heads, head_dim, scale, capacity) = (4, 2, 12, 0.4, 40);
        let op = DecodeAttention {
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
            ..Default::default()
        };
        r.check(op);
        r.check(DecodeAttention { window: 6, softcap: 1.5, ..op });
    });
}

#[test]
fn sampling_of_bf16_matches() {
    rounded(|r| {
        let (logits, noise) = (r.half_mat(60, 300), r.values(1, 60, rig::Rng::uniform));
        let (token, logp) = (r.ids(60, 2), r.mat(1, 60));
        let (kept_logp, kept_entropy) = (r.some(1, 60), r.some(1, 60));
        // The outputs are f32.
        r.tolerance = 4e-6;
        let op = Sample { logits, noise, token, logp, kept_logp, kept_entropy, ..Sample::default() };
        r.check(op);
        r.check(Sample { temperature: 0.7, top_k: 100, top_p: 0.95, ..op });
    });
}

#[test]
fn the_head_of_bf16_matches_across_chunks() {
    for (n, d, vocabulary, softcap) in [(70, 33, 300, 0.0), (1100, 8, 40, 0.0), (65, 16, 90, 3.0)] {
        rounded(|r| {
            let (x, w, bias) = (r.half_mat(n, d), r.half_mat(vocabulary, d), Some(r.half_mat(1, vocabulary)));
            let (targets, lse, dlogp) = (r.ids(n, vocabulary), r.mat(1, n), r.mat(1, n));
            let (logp, entropy, logits) = (r.mat(1, n), r.some(1, n), Some(r.half_mat(n, vocabulary)));
            let stats = HeadStats { x, w, targets, bias, logp, lse: Some(lse), entropy, softcap, ..Default::default() };
            r.check(stats);
            r.check(HeadStats { logits, ..stats });
            let (dx, dw, dbias) = (r.half_mat(n, d), r.some(vocabulary, d), r.some(1, vocabulary));
            let back = HeadBackward {
                x,
                w,
                targets,
                bias,
                lse,
                dlogp: Some(dlogp),
                dx,
                dw,
                dbias,
                softcap,
                ..Default::default()
            };
            r.check(back);
            r.check(HeadBackward { logits, ..back });
            r.check(HeadFused { x, w, targets, bias, dlogp, logp, dx, dw, dbias, softcap, ..Default::default() });
        });
    }
}
