//! Every operation on both paths compared with the reference in f64, and bit for bit on 1, 2 and 3 threads.
//!
//! The contract's conformance table does this for every backend; these cases add the sizes at which this backend's chunks, blocks
//! and tiles start and end, views with gaps, and every pair of operands that may share memory.

use crate::rig::{self, Rig, each_layout};
use plugin_api::backend::{View, ops::*};

#[test]
fn elementwise_operations_including_in_place() {
    for (rows, cols) in [(1, 1), (3, 5), (70, 129), (900, 300)] {
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
fn activations_match_in_place_and_out_of_place() {
    r_tolerance(2e-6, |r| {
        for (kind, _) in ActivationKind::ALL.iter().copied() {
            let (x, dy, out) = (r.mat(45, 1000), r.mat(45, 1000), r.mat(45, 1000));
            r.check(Activation { x, y: out, kind });
            r.check(ActivationBackward { x, dy, dx: out, kind });
            r.check(ActivationBackward { x, dy, dx: dy, kind });
            let dy = r.mat(45, 1000);
            r.check(ActivationBackward { x, dy, dx: x, kind });
            r.check(ActivationBackward { x: dy, dy, dx: dy, kind });
            let x = r.mat(45, 1000);
            r.check(Activation { x, y: x, kind });
        }
    });
}

#[test]
fn gated_units_match_in_place_and_out_of_place() {
    r_tolerance(2e-6, |r| {
        for (kind, _) in ActivationKind::ALL.iter().copied() {
            let [gate, up, y] = [0; 3].map(|_| r.mat(45, 1000));
            r.check(Glu { gate, up, y, kind });
            r.check(Glu { gate, up, y: up, kind });
            r.check(Glu { gate, up: gate, y, kind });
            r.check(Glu { gate, up, y: gate, kind });
            r.check(Glu { gate, up: gate, y: gate, kind });
            let [gate, up, dy, dgate, dup] = [0; 5].map(|_| r.mat(45, 1000));
            r.check(GluBackward { gate, up, dy, dgate, dup, kind });
            r.check(GluBackward { gate, up, dy, dgate: dy, dup, kind });
            let dy = r.mat(45, 1000);
            r.check(GluBackward { gate, up, dy, dgate: gate, dup: up, kind });
        }
    });
}

#[test]
fn embedding_gradients_sum_repeated_rows_in_order() {
    each_layout(|r| {
        let ids = r.ids(800, 11);
        let (table, y) = (r.mat(11, 130), r.mat(800, 130));
        r.check(Embedding { ids, table, y, scale: 1.5, ..Embedding::default() });
        let (positions, position_table) = (Some(r.ids(800, 40)), r.some(40, 130));
        r.check(Embedding { ids, table, positions, position_table, y, scale: 1.0 });
        let dtable = r.mat(11, 130);
        r.check(EmbeddingBackward { ids, dy: y, dtable, scale: 1.5 });
        let out = r.mat(800, 130);
        r.check(GatherRows { x: table, index: ids, y: out });
        r.check(ScatterAddRows { index: ids, dy: out, dx: dtable });
    });
}

#[test]
fn norms_match_with_and_without_each_optional_operand() {
    for (rows, cols) in [(1, 1), (5, 33), (600, 100)] {
        each_layout(|r| {
            r.tolerance = 1e-5;
            for kind in [NormKind::RMS, NormKind::LAYER] {
                let [x, y, total, dy, dx] = [0; 5].map(|_| r.mat(rows, cols));
                let (residual, weight, bias) = (r.some(rows, cols), r.some(1, cols), r.some(1, cols));
                let stats = r.mat(rows, 2);
                let (dweight, dbias) = (r.some(1, cols), r.some(1, cols));
                let eps = 0.1; // One column's variance is 0.
                r.check(Norm { x, y, kind, eps, ..Norm::default() });
                let full = Norm {
                    x,
                    residual,
                    weight,
                    bias,
                    y,
                    sum: Some(total),
                    stats: Some(stats),
                    kind,
                    eps,
                    weight_offset: 1.0,
                };
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
fn global_norm_sums_in_f64_and_flags_values_that_are_not_finite() {
    let mut r = Rig::new(1);
    r.tolerance = 1e-7;
    for n in [0, 1, 64, 16_384 * 10 + 77] {
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
fn adamw_steps_segments_clips_and_refuses_values_that_are_not_finite() {
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
    let shadow = Some(r.halves(1, n));
    r.tolerance = 0.01; // A difference in the last place of f32 may round to the next bf16.
    r.check(AdamW { step: 8, shadow, ..op });
    r.tolerance = 4e-6;
    let poisoned = r.values(1, n, |_| f32::NAN);
    r.check(GlobalNorm { x: poisoned, norm });
    r.check(AdamW { grads: poisoned, step: 8, ..op });
}

fn r_tolerance(tolerance: f64, f: impl Fn(&mut Rig)) {
    each_layout(|r| {
        r.tolerance = tolerance;
        f(r);
    });
}

#[test]
fn bf16_is_moved_and_rounded_to_nearest_even() {
    let mut r = Rig::new(11);
    let (x, y) = (r.mat(7, 65), r.halves(7, 65));
    let back = r.mat(7, 65);
    r.check(Cast { x, y });
    r.check(Cast { x: y, y: back });
    // 1 + 2^-8 lies between two bfloat16s: rounded down to the even one; 1 + 3 * 2^-8 is rounded up to it.
    let ties = r.values(1, 2, {
        let mut at = -1.0;
        move |_| {
            at += 2.0;
            1.0 + at / 256.0
        }
    });
    let (rounded, seen) = (r.halves(1, 2), r.mat(1, 2));
    r.check(Cast { x: ties, y: rounded });
    r.check(Cast { x: rounded, y: seen });
    let copied = r.halves(7, 65);
    r.check(Copy { x: y, y: copied });
    r.check(Fill { x: copied, value: 0.1 });
}
