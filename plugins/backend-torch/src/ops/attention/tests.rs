//! The paths of attention compared with each other, their launches and their uploads.

use crate::{
    TorchSession,
    queue::traced,
    settings::AttentionPath::{self, Batched, Blocks, Fastest},
    testing::session,
};
use plugin_api::backend::{
    DType, View,
    ops::{Attention, AttentionBackward, DecodeAttention, MaskKind},
};

/// A call, without its operands, and the sequences' lengths.
#[derive(Clone)]
struct Setting {
    op: Attention,
    dtype: DType,
    lengths: Vec<u64>,
}

impl Setting {
    fn plain(lengths: Vec<u64>) -> Setting {
        let op = Attention { heads: 4, kv_heads: 2, head_dim: 8, scale: 0.4, ..Attention::default() };
        Setting { op, dtype: DType::F32, lengths }
    }

    /// Puts the operands on the session; queries, keys and values lie beside each other in one buffer.
    fn operands(&self, s: &mut TorchSession) -> (Attention, AttentionBackward) {
        let op = &self.op;
        let tokens = self.lengths.iter().sum();
        let (queries, keys) = ((op.heads * op.head_dim) as u64, (op.kv_heads * op.head_dim) as u64);
        let together = s.random(1, self.dtype, tokens, queries + 2 * keys);
        let part = |offset: u64, cols: u64| View { offset, cols, ..together };
        let (q, k, v) = (part(0, queries), part(queries, keys), part(queries + keys, keys));
        let mut end = 0;
        let ends = self.lengths.iter().map(|length| {
            end += length;
            end
        });
        let offsets = s.integers(&std::iter::once(0).chain(ends).collect::<Vec<_>>());
        // A part of the sequence, no token, one token, more than the whole.
        let prefix = |(at, length): (usize, &u64)| [length / 2, 0, 1, length + 3][at % 4];
        let prefix = s.integers(&self.lengths.iter().enumerate().map(prefix).collect::<Vec<_>>());
        let prefix = (op.mask == MaskKind::PREFIX).then_some(prefix);
        let acc = if self.dtype == DType::BF16 { DType::F32 } else { self.dtype };
        let y = s.random(2, self.dtype, tokens, queries);
        let lse = s.random(3, acc, tokens, op.heads as u64);
        let dy = s.random(4, self.dtype, tokens, queries);
        let d = s.random(5, self.dtype, tokens, queries + 2 * keys);
        let part = |offset: u64, cols: u64| View { offset, cols, ..d };
        let (dq, dk, dv) = (part(0, queries), part(queries, keys), part(queries + keys, keys));
        let forward = Attention { q, k, v, offsets, prefix, y, lse: Some(lse), ..*op };
        let backward = AttentionBackward {
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
            heads: op.heads,
            kv_heads: op.kv_heads,
            head_dim: op.head_dim,
            scale: op.scale,
            mask: op.mask,
            window: op.window,
            softcap: op.softcap,
        };
        (forward, backward)
    }

    /// The results of both directions.
    fn results(&self, path: AttentionPath) -> Vec<Vec<f64>> {
        let mut s = session(path);
        let (forward, backward) = self.operands(&mut s);
        s.run(&forward);
        s.run(&backward);
        let views = [&forward.y, &backward.lse, &backward.dq, &backward.dk, &backward.dv];
        views.map(|view| s.values(view)).to_vec()
    }

    /// The number of ATen functions called in each direction, once everything derived from the sequences is known.
    fn launches(&self, path: AttentionPath) -> [usize; 2] {
        let mut s = session(path);
        let (forward, backward) = self.operands(&mut s);
        s.run(&forward);
        [traced(|| s.run(&forward)).len(), traced(|| s.run(&backward)).len()]
    }
}

/// Lengths between 1 and `longest`, in no order.
fn ragged(count: u64, longest: u64) -> Vec<u64> {
    (0..count).map(|at| 1 + at * 7919 % longest).collect()
}

/// Catches numbers of padding in a result, a row brought back to another place, a sequence that is left out because it is long or
/// empty, a prefix or length of another sequence, heads in another order, and a mask that depends on the padded length.
#[test]
fn batches_give_the_results_of_single_sequences() {
    let mut mixed = ragged(30, 40);
    mixed.extend([0, 131, 0, 0, 130, 1, 64]);
    for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 2e-5), (DType::BF16, 4e-2)] {
        for mask in [MaskKind::CAUSAL, MaskKind::BIDIRECTIONAL, MaskKind::PREFIX] {
            for (window, softcap) in [(0, 0.0), (5, 0.0), (0, 1.5), (3, 1.5)] {
                let plain = Setting::plain(mixed.clone());
                let op = Attention { mask, window, softcap, ..plain.op };
                compare(&Setting { op, dtype, ..plain }, tolerance);
            }
        }
    }
    // The scores of 1,200 tokens exceed the limit of a batch.
    let plain = Setting::plain(vec![3, 1200, 0, 7, 7]);
    compare(&Setting { op: Attention { window: 100, ..plain.op }, ..plain }, 2e-5);
    compare(&Setting::plain(vec![1100]), 2e-5);
}

fn compare(setting: &Setting, tolerance: f64) {
    let names = ["y", "lse", "dq", "dk", "dv"];
    for (name, (batched, alone)) in names.iter().zip(setting.results(Batched).iter().zip(setting.results(Blocks))) {
        for (at, (a, b)) in batched.iter().zip(&alone).enumerate() {
            let Setting { op, dtype, .. } = setting;
            let what = format!("{name}[{at}], {dtype}, {:?}, window {}, softcap {}", op.mask, op.window, op.softcap);
            assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}: {a} in a batch, {b} alone");
        }
    }
}

/// Catches a NaN or infinity of one sequence that reaches another one through padding.
#[test]
fn a_sequence_reads_no_other_one() {
    let setting =
        Setting { op: Attention { softcap: 2.0, ..Setting::plain(vec![]).op }, ..Setting::plain(vec![3, 5, 4]) };
    let mut s = session(Batched);
    let (forward, backward) = setting.operands(&mut s);
    let bad = View { rows: 5, offset: forward.q.offset + 3 * forward.q.row_stride, cols: 64, ..forward.q };
    _ = s.at(&bad).unwrap().fill_(f64::NAN);
    s.run(&forward);
    s.run(&backward);
    for view in [&forward.y, &backward.lse, &backward.dq, &backward.dk, &backward.dv] {
        let values = s.values(view);
        for (row, numbers) in values.chunks(view.cols as usize).enumerate() {
            let inside = (3..8).contains(&row);
            assert!(numbers.iter().all(|number| inside || number.is_finite()), "row {row}: {numbers:?}");
        }
    }
}

/// Catches a loop over sequences on any way through a call.
#[test]
fn launches_do_not_grow_with_the_number_of_sequences() {
    let equal = |count| Setting::plain(vec![16; count]).launches(Batched);
    let [forward, backward] = equal(3);
    assert_eq!(equal(300), [forward, backward]);
    // Sequences of other lengths need further batches, but not one each: less than half as many again per factor of sqrt(2).
    let [many, many_backward] = Setting::plain(ragged(600, 48)).launches(Batched);
    assert!(many < 12 * forward && many_backward < 12 * backward, "{many}, {many_backward}");
    // What is counted does grow where there is a loop.
    let alone = |count| Setting::plain(vec![16; count]).launches(Blocks)[0];
    assert!(alone(30) > 9 * alone(3) && alone(30) > 5 * forward);
}

/// Catches what is derived from sequences being uploaded for every layer, kept although the sequences have changed, and used for a
/// layer with another mask.
#[test]
fn sequences_are_uploaded_once_for_all_layers_until_they_change() {
    let setting = Setting::plain(ragged(20, 12));
    let mut s = session(Batched);
    let (forward, backward) = setting.operands(&mut s);
    s.run(&forward);
    let before = s.counts().uploads.get();
    for _ in 0..3 {
        s.run(&forward);
        s.run(&backward);
    }
    assert_eq!(s.counts().uploads.get(), before);
    // Layers with another mask or window have batches of their own.
    for (mask, window) in [(MaskKind::BIDIRECTIONAL, 0), (MaskKind::CAUSAL, 2), (MaskKind::CAUSAL, 0)] {
        s.run(&Attention { mask, window, ..forward });
        let found = s.values(&forward.y);
        let mut other = session(Blocks);
        let (alone, _) =
            Setting { op: Attention { mask, window, ..setting.op }, ..setting.clone() }.operands(&mut other);
        other.run(&alone);
        let differs = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-5;
        assert!(!found.iter().zip(&other.values(&alone.y)).any(differs), "{mask:?}, window {window}");
    }
    let before = s.counts().uploads.get();
    let old = s.values(&forward.y);
    let tokens = forward.q.rows as f64;
    let mut offsets = s.values(&forward.offsets);
    offsets[1..].fill(tokens);
    s.set(&forward.offsets, &offsets);
    s.run(&forward);
    assert!(s.counts().uploads.get() > before);
    assert_ne!(s.values(&forward.y), old);
    let mut other = session(Blocks);
    let (alone, _) = Setting::plain(vec![tokens as u64]).operands(&mut other);
    other.run(&alone);
    for (a, b) in s.values(&forward.y).iter().zip(other.values(&alone.y)) {
        assert!((a - b).abs() < 1e-5);
    }
}

/// Catches places in the cache that are uploaded for every layer, or kept for the next token.
#[test]
fn places_in_the_cache_are_uploaded_once_per_token() {
    let mut s = session(Fastest);
    let (heads, kv_heads, head_dim, capacity) = (4, 2, 8, 10);
    let (queries, keys) = ((heads * head_dim) as u64, (kv_heads * head_dim) as u64);
    let (slots, lengths) = (s.integers(&[2, 0, 1]), s.integers(&[0, 3, 5]));
    let layers: Vec<DecodeAttention> = (0..2)
        .map(|layer| DecodeAttention {
            q: s.random(layer, DType::F32, 3, queries),
            k: s.random(layer + 10, DType::F32, 3, keys),
            v: s.random(layer + 20, DType::F32, 3, keys),
            k_cache: s.random(layer + 30, DType::F32, 30, keys),
            v_cache: s.random(layer + 40, DType::F32, 30, keys),
            y: s.random(layer + 50, DType::F32, 3, queries),
            slots,
            lengths,
            heads,
            kv_heads,
            head_dim,
            capacity,
            scale: 0.3,
            ..DecodeAttention::default()
        })
        .collect();
    s.run(&layers[0]);
    let first = s.counts().uploads.get();
    s.run(&layers[1]);
    assert_eq!(s.counts().uploads.get(), first);
    let row = |s: &TorchSession, at: u64| s.values(&View { rows: 1, offset: at * keys, ..layers[1].k_cache });
    assert_ne!(row(&s, 21), s.values(&View { rows: 1, ..layers[1].k }));
    s.set(&lengths, &[1.0, 4.0, 6.0]);
    s.run(&layers[1]);
    assert_eq!(s.counts().uploads.get(), 2 * first);
    assert_eq!(row(&s, 21), s.values(&View { rows: 1, ..layers[1].k }));
    // A window is another set of places.
    let narrow = DecodeAttention { window: 1, ..layers[1] };
    s.run(&narrow);
    let first_of_row_1 = |s: &TorchSession, view: View| s.values(&view)[view.cols as usize];
    let (seen, new) = (first_of_row_1(&s, narrow.y), first_of_row_1(&s, narrow.v));
    assert!((seen - new).abs() < 1e-6, "a window of one shows the new value alone: {new}, not {seen}");
}
