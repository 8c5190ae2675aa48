//! Every operation on both paths against the reference in f64, and on 1, 2 and 3 threads bit for bit.
//!
//! The contract's conformance table does this for every backend; these cases add the sizes at which this backend's
//! chunks, blocks and tiles begin and end, views with gaps, and every pair of operands that may be one.

mod rig;

use plugin_api::{
    Code,
    backend::{View, ops::*},
};
use rig::{Rig, each_layout};

#[test]
fn elementwise_operations_including_in_place() {
    for (rows, cols) in [(1, 1), (3, 5), (70, 129), (300, 64)] {
        each_layout(|r| {
            let x = r.mat(rows, cols);
            let y = r.mat(rows, cols);
            r.check(Axpy { x, y, alpha: -0.7 });
            r.check(Scale { x: y, alpha: 3.0 });
            r.check(Copy { x, y });
            r.check(Fill { x: y, value: 2.5 });
        });
    }
}

#[test]
fn activations_match_where_output_is_new_or_an_input() {
    r_tolerance(2e-6, |r| {
        for (kind, _) in ActivationKind::ALL.iter().copied() {
            let (x, dy, out) = (r.mat(37, 70), r.mat(37, 70), r.mat(37, 70));
            r.check(Activation { x, y: out, kind });
            r.check(ActivationBackward { x, dy, dx: out, kind });
            r.check(ActivationBackward { x, dy, dx: dy, kind });
            let dy = r.mat(37, 70);
            r.check(ActivationBackward { x, dy, dx: x, kind });
            r.check(ActivationBackward { x: dy, dy, dx: dy, kind });
            let x = r.mat(37, 70);
            r.check(Activation { x, y: x, kind });
        }
    });
}

#[test]
fn gated_units_match_where_output_is_new_or_an_input() {
    r_tolerance(2e-6, |r| {
        for (kind, _) in ActivationKind::ALL.iter().copied() {
            let [gate, up, y] = [0; 3].map(|_| r.mat(9, 300));
            r.check(Glu { gate, up, y, kind });
            r.check(Glu { gate, up, y: up, kind });
            r.check(Glu { gate, up: gate, y, kind });
            r.check(Glu { gate, up, y: gate, kind });
            r.check(Glu { gate, up: gate, y: gate, kind });
            let [gate, up, dy, dgate, dup] = [0; 5].map(|_| r.mat(9, 300));
            r.check(GluBackward { gate, up, dy, dgate, dup, kind });
            r.check(GluBackward { gate, up, dy, dgate: dy, dup, kind });
            let dy = r.mat(9, 300);
            r.check(GluBackward { gate, up, dy, dgate: gate, dup: up, kind });
        }
    });
}

#[test]
fn embeddings_sum_repeated_rows_in_order() {
    each_layout(|r| {
        let ids = r.ids(200, 11);
        let (table, y) = (r.mat(11, 130), r.mat(200, 130));
        r.check(Embedding { ids, table, y, scale: 1.5, ..Embedding::default() });
        let (positions, position_table) = (Some(r.ids(200, 40)), r.some(40, 130));
        r.check(Embedding { ids, table, positions, position_table, y, scale: 1.0 });
        let dtable = r.mat(11, 130);
        r.check(EmbeddingBackward { ids, dy: y, dtable, scale: 1.5 });
        let out = r.mat(200, 130);
        r.check(GatherRows { x: table, index: ids, y: out });
        r.check(ScatterAddRows { index: ids, dy: out, dx: dtable });
    });
}

#[test]
fn norms_match_with_and_without_each_optional_operand() {
    for (rows, cols) in [(1, 1), (5, 33), (130, 128)] {
        each_layout(|r| {
            r.tolerance = 1e-5;
            for kind in [NormKind::RMS, NormKind::LAYER] {
                let [x, y, total, dy, dx] = [0; 5].map(|_| r.mat(rows, cols));
                let (residual, weight, bias) = (r.some(rows, cols), r.some(1, cols), r.some(1, cols));
                let stats = r.mat(rows, 2);
                let (dweight, dbias) = (r.some(1, cols), r.some(1, cols));
                let eps = 0.1; // One column's variance is 0.
                r.check(Norm { x, y, kind, eps, ..Norm::default() });
                let full =
                    Norm { x, residual, weight, bias, y, sum: Some(total), stats: Some(stats), kind, eps, weight_offset: 1.0 };
                r.check(full);
                r.check(Norm { sum: None, ..full });
                let back = NormBackward { x: total, stats, dy, dx, kind, ..NormBackward::default() };
                r.check(back);
                let back = NormBackward { weight, dsum: Some(x), dweight, dbias, weight_offset: 1.0, ..back };
                r.check(back);
                r.check(NormBackward { dsum: Some(dx), ..back });
                r.check(NormBackward { dy: dx, ..back });
                r.check(Norm { sum: Some(x), ..full });
                r.check(Norm { sum: residual, ..full });
                r.check(Norm { residual: Some(x), sum: Some(x), ..full });
            }
        });
    }
}

#[test]
fn products_match_at_sizes_that_end_inside_tiles() {
    for (n, i, o) in [(1, 1, 1), (2, 7, 3), (65, 33, 129), (257, 200, 385), (768, 128, 128), (1, 300, 500)] {
        each_layout(|r| {
            r.tolerance = 1e-5;
            let (x, w, y) = (r.mat(n, i), r.mat(o, i), r.mat(n, o));
            let bias = r.some(1, o);
            r.check(Linear { x, w, bias: None, y });
            r.check(Linear { x, w, bias, y });
            let (dx, dw, dbias) = (r.mat(n, i), r.mat(o, i), r.some(1, o));
            r.check(LinearBackwardInput { dy: y, w, dx, accumulate: false });
            let dy = r.mat(n, o);
            r.check(LinearBackwardInput { dy, w, dx, accumulate: true });
            r.check(LinearBackwardWeight { x, dy, dw, dbias: None });
            r.check(LinearBackwardWeight { x, dy, dw, dbias });
        });
    }
}

#[test]
fn an_empty_sum_is_zero_and_empty_operands_do_nothing() {
    let mut r = Rig::new(3);
    let (x, w, y) = (r.mat(5, 0), r.mat(4, 0), r.mat(5, 4));
    r.check(Linear { x, w, bias: None, y });
    let (x, dy, dw) = (r.mat(0, 3), r.mat(0, 4), r.mat(4, 3));
    r.check(LinearBackwardWeight { x, dy, dw, dbias: None });
    let stats = r.some(0, 2);
    r.check(Norm { x, y: View { buffer: dw.buffer, ..x }, stats, ..Norm::default() });
}

#[test]
fn rotary_turns_and_turns_back_in_both_pairings() {
    each_layout(|r| {
        let (head_dim, pairs) = (24, 8);
        let (x, y) = (r.mat(50, 3 * head_dim), r.mat(50, 3 * head_dim));
        let positions = r.ids(50, 30);
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
    let part = |fused: View, from: usize, cols: usize| View {
        offset: fused.offset + from as u64,
        cols: cols as u64,
        ..fused
    };
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
        q, k, v, y, lse, dy, offsets, prefix, dq, dk, dv, heads, kv_heads, head_dim, scale, mask, window, softcap,
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
                q, k, v, slots, lengths, y, k_cache, v_cache, heads, kv_heads, head_dim, scale, capacity, window, softcap,
            });
        }
    });
}

fn head_case(r: &mut Rig, n: usize, d: usize, vocabulary: usize, base: HeadStats, biased: bool) {
    let HeadStats { temperature, softcap, scale, .. } = base;
    let (x, w) = (r.mat(n, d), r.mat(vocabulary, d));
    let bias = biased.then(|| r.mat(1, vocabulary));
    let targets = r.ids(n, vocabulary);
    let row = |r: &mut Rig| r.some(1, n);
    let (logp, lse, entropy, mean_logit) = (r.mat(1, n), row(r), row(r), row(r));
    let top1 = Some(r.ids(n, vocabulary));
    let few = HeadStats { x, w, targets, bias, logp, temperature, softcap, scale, ..HeadStats::default() };
    r.check(few);
    let logits = r.some(n, vocabulary);
    r.check(HeadStats { lse, entropy, mean_logit, top1, logits, ..few });
    let (dlogp, dlse, dmean_logit, dentropy) = (row(r), row(r), row(r), row(r));
    let (dx, dw, dbias) = (r.mat(n, d), r.some(vocabulary, d), r.some(1, vocabulary));
    let back = HeadBackward {
        x, w, targets, lse: lse.unwrap(), bias, dlogp, dlse, dmean_logit, dx, dw, dbias, temperature, softcap, scale,
        ..HeadBackward::default()
    };
    r.check(back);
    r.check(HeadBackward { logits, entropy, dentropy, dmean_logit: None, ..back });
    r.check(HeadBackward { entropy, dentropy, dlogp: None, dlse: None, dw: None, dbias: None, ..back });
    let fused = HeadFused {
        x, w, targets, dlogp: dlogp.unwrap(), bias, logp, dx, dw, dbias, temperature, softcap, scale,
        ..HeadFused::default()
    };
    r.check(fused);
    r.check(HeadFused { dlse, dmean_logit, lse, entropy, mean_logit, top1, ..fused });
}

#[test]
fn head_statistics_and_gradients_match_with_cap_temperature_scale_and_bias() {
    each_layout(|r| {
        r.tolerance = 2e-5;
        let plain = HeadStats { scale: 0.3, ..HeadStats::default() };
        head_case(r, 70, 16, 97, plain, false);
        head_case(r, 5, 9, 3, HeadStats { temperature: 0.7, ..plain }, true);
        head_case(r, 40, 16, 50, HeadStats { softcap: 2.0, temperature: 1.3, ..plain }, true);
        head_case(r, 40, 16, 50, HeadStats { softcap: 2.0, ..plain }, false);
    });
}

#[test]
fn gotcha_40_head_chunks_do_not_show() {
    // 64 tokens to a chunk at this vocabulary: 65 tokens make two.
    let mut r = Rig::new(5);
    r.tolerance = 2e-5;
    head_case(&mut r, 65, 2, 130_000, HeadStats::default(), false);
}

#[test]
fn uniform_logits_have_lowest_index_as_top1_and_infinite_ones_no_entropy() {
    let mut r = Rig::new(9);
    let (x, w) = (r.values(2, 1, |_| 1.0), r.values(6, 1, |_| 0.0));
    let targets = r.ints(&[3, 5]);
    let mut some = || r.some(1, 2);
    let (entropy, lse) = (some(), some());
    let (logp, top1) = (r.mat(1, 2), Some(r.ints(&[9, 9])));
    r.check(HeadStats { x, w, targets, logp, entropy, lse, top1, ..HeadStats::default() });
    let mut at = 0;
    let bias = Some(r.values(1, 6, |_| {
        at += 1;
        if at % 2 == 0 { f32::NEG_INFINITY } else { at as f32 }
    }));
    let targets = r.ints(&[2, 4]);
    r.check(HeadStats { x, w, bias, targets, logp, entropy, lse, top1, ..HeadStats::default() });
}

#[test]
fn sampling_ranks_cuts_and_draws_as_the_reference() {
    for vocabulary in [1, 5, 300] {
        each_layout(|r| {
            let logits = r.values(60, vocabulary, |rng| rng.normal() * 2.0);
            let noise = r.values(1, 60, rig::Rng::uniform);
            let (token, logp) = (r.ids(60, 2), r.mat(1, 60));
            let base = Sample { logits, noise, token, logp, ..Sample::default() };
            for op in [
                base,
                Sample { temperature: 0.0, ..base },
                Sample { temperature: 0.5, top_k: 3, ..base },
                Sample { top_p: 0.8, ..base },
                Sample { temperature: 1.7, top_k: 100, top_p: 0.95, ..base },
            ] {
                r.check(op);
            }
            // Ties: the lower index ranks first.
            let logits = r.values(60, vocabulary, |_| 1.0);
            r.check(Sample { logits, top_k: 2, ..base });
        });
    }
}

#[test]
fn global_norm_sums_in_f64_and_flags_what_is_not_finite() {
    let mut r = Rig::new(1);
    r.tolerance = 1e-7;
    for n in [0, 1, 64, 16_384 * 2 + 77] {
        let (x, norm) = (r.mat(1, n), r.mat(1, 2));
        r.check(GlobalNorm { x, norm });
    }
    // Squares overflow f32.
    let x = r.values(1, 100, |_| 1e30);
    let norm = r.mat(1, 2);
    r.check(GlobalNorm { x, norm });
    for bad in [f32::NAN, f32::INFINITY, 3e38] {
        let x = r.values(1, 100, |_| bad);
        r.check(GlobalNorm { x, norm });
    }
}

#[test]
fn adamw_steps_segments_clips_and_refuses_what_is_not_finite() {
    let mut r = Rig::new(2);
    let n = 64 * 600;
    let (params, m, grads) = (r.mat(1, n), r.mat(1, n), r.mat(1, n));
    let (v, shadow) = (r.values(1, n, rig::Rng::uniform), r.some(1, n));
    let bounds = r.ints(&[0, 3, 3, 255, 600]);
    let hyper = r.values(4, 2, |rng| rng.uniform() * 0.1);
    let norm = r.mat(1, 2);
    r.check(GlobalNorm { x: grads, norm });
    let op = AdamW { grads, norm, bounds, hyper, params, m, v, ..AdamW::default() };
    r.check(op);
    r.check(AdamW { clip: 1.0, step: 7, beta2: 0.95, eps: 1e-5, shadow, ..op });
    let poisoned = r.values(1, n, |_| f32::NAN);
    r.check(GlobalNorm { x: poisoned, norm });
    r.check(AdamW { grads: poisoned, step: 8, ..op });
}

#[test]
fn indices_outside_their_tables_are_refused_before_anything_is_written() {
    let mut r = Rig::new(4);
    let (table, y) = (r.mat(11, 8), r.mat(3, 8));
    for bad in [11, -1, i32::MIN] {
        let ids = r.ints(&[0, bad, 2]);
        let words = [bad.to_string()];
        let words = ["11", words[0].as_str(), "ids"];
        r.refused(Embedding { ids, table, y, ..Embedding::default() }, Code::INDEX, &words);
        r.refused(EmbeddingBackward { ids, dy: y, dtable: table, scale: 1.0 }, Code::INDEX, &words);
        r.refused(GatherRows { x: table, index: ids, y }, Code::INDEX, &["11", "index"]);
        r.refused(ScatterAddRows { index: ids, dy: y, dx: table }, Code::INDEX, &["11", "index"]);
        let (x, w, logp, dx) = (r.mat(3, 8), table, r.mat(1, 3), r.mat(3, 8));
        r.refused(HeadStats { x, w, targets: ids, logp, ..HeadStats::default() }, Code::INDEX, &["targets"]);
        let fused = HeadFused { x, w, targets: ids, dlogp: logp, logp: dx_row(&mut r), dx, ..HeadFused::default() };
        r.refused(fused, Code::INDEX, &["targets"]);
        let (cos, sin) = (r.mat(11, 4), r.mat(11, 4));
        r.refused(
            Rotary { x, positions: ids, cos, sin, y, head_dim: 8, ..Rotary::default() },
            Code::INDEX,
            &["positions", "11"],
        );
    }
    // Nothing was written: the buffers still agree.
    r.check(Nop {});
}

fn dx_row(r: &mut Rig) -> View {
    r.mat(1, 3)
}

#[test]
fn offsets_that_are_no_cu_seqlens_are_refused() {
    let mut r = Rig::new(6);
    let [q, k, v, y] = [0; 4].map(|_| r.mat(6, 8));
    for bad in [&[0, 5][..], &[1, 6], &[0, 4, 3, 6], &[0, 9, 6], &[-1, 6]] {
        let offsets = r.ints(bad);
        let op = Attention { q, k, v, offsets, y, head_dim: 8, ..Attention::default() };
        r.refused(op, Code::INDEX, &["offsets"]);
    }
    let offsets = r.ints(&[0, 6]);
    let op = Attention { q, k, v, offsets, y, head_dim: 8, mask: MaskKind::PREFIX, ..Attention::default() };
    r.refused(op, Code::INVALID_ARGUMENT, &["prefix"]);
}

#[test]
fn a_slot_given_twice_is_refused() {
    let mut r = Rig::new(8);
    let [q, k, v, y] = [0; 4].map(|_| r.mat(2, 8));
    let [k_cache, v_cache] = [0; 2].map(|_| r.mat(8, 8));
    let (slots, lengths) = (r.ints(&[1, 1]), r.ints(&[0, 0]));
    let op =
        DecodeAttention { q, k, v, slots, lengths, y, k_cache, v_cache, head_dim: 8, capacity: 4, ..DecodeAttention::default() };
    r.refused(op, Code::INVALID_ARGUMENT, &["slot 1"]);
    let slots = r.ints(&[0, 2]);
    r.refused(DecodeAttention { slots, ..op }, Code::INDEX, &["slots"]);
    let (slots, lengths) = (r.ints(&[0, 1]), r.ints(&[0, 4]));
    r.refused(DecodeAttention { slots, lengths, ..op }, Code::INDEX, &["lengths"]);
}

fn r_tolerance(tolerance: f64, f: impl Fn(&mut Rig)) {
    each_layout(|r| {
        r.tolerance = tolerance;
        f(r);
    });
}
