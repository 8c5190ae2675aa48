//! The head in all its forms, and sampling.

use crate::rig::{self, Rig, each_layout};
use plugin_api::backend::{View, ops::*};

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
        x,
        w,
        targets,
        lse: lse.unwrap(),
        bias,
        dlogp,
        dlse,
        dmean_logit,
        dx,
        dw,
        dbias,
        temperature,
        softcap,
        scale,
        ..HeadBackward::default()
    };
    r.check(back);
    r.check(HeadBackward { logits, entropy, dentropy, dmean_logit: None, ..back });
    r.check(HeadBackward { entropy, dentropy, dlogp: None, dlse: None, dw: None, dbias: None, ..back });
    let fused = HeadFused {
        x,
        w,
        targets,
        dlogp: dlogp.unwrap(),
        bias,
        logp,
        dx,
        dw,
        dbias,
        temperature,
        softcap,
        scale,
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
        head_case(r, 300, 16, 97, plain, false);
        head_case(r, 5, 9, 3, HeadStats { temperature: 0.7, ..plain }, true);
        head_case(r, 40, 16, 50, HeadStats { softcap: 2.0, temperature: 1.3, ..plain }, true);
        head_case(r, 40, 16, 50, HeadStats { softcap: 2.0, ..plain }, false);
    });
}

#[test]
fn gotcha_40_head_chunks_do_not_change_results() {
    // 64 tokens to a chunk at this vocabulary: 65 tokens make two.
    let mut r = Rig::new(5);
    r.tolerance = 2e-5;
    head_case(&mut r, 65, 1, 65_537, HeadStats::default(), false);
}

fn divergence_case(
    r: &mut Rig,
    (n, d, e, vocabulary): (usize, usize, usize, usize),
    base: HeadDivergence,
    biased: bool,
) {
    let (x, w, x2, w2) = (r.mat(n, d), r.mat(vocabulary, d), r.mat(n, e), r.mat(vocabulary, e));
    let [bias, bias2] = [0; 2].map(|_| biased.then(|| r.mat(1, vocabulary)));
    let [kl, lse, lse2, dkl] = [0; 4].map(|_| r.mat(1, n));
    let few = HeadDivergence { x, w, x2, w2, bias, bias2, kl, ..base };
    r.check(few);
    r.check(HeadDivergence { lse: Some(lse), lse2: Some(lse2), ..few });
    let (dx, dw, dbias) = (r.mat(n, d), r.some(vocabulary, d), r.some(1, vocabulary));
    let HeadDivergence { weight, temperature, softcap, scale, softcap2, scale2, .. } = base;
    let back = HeadDivergenceBackward {
        x,
        w,
        x2,
        w2,
        lse,
        lse2,
        dkl,
        bias,
        bias2,
        dx,
        weight,
        temperature,
        softcap,
        scale,
        softcap2,
        scale2,
        ..HeadDivergenceBackward::default()
    };
    r.check(back);
    r.check(HeadDivergenceBackward { dw, dbias, ..back });
}

#[test]
fn divergences_match_at_every_weight_and_across_chunks() {
    each_layout(|r| {
        r.tolerance = 1e-4;
        for weight in [0.0, 0.1, 0.4, 1.0] {
            let plain = HeadDivergence { weight, scale: 0.3, scale2: 0.4, ..HeadDivergence::default() };
            divergence_case(r, (70, 16, 5, 97), plain, false);
            let capped = HeadDivergence { softcap: 2.0, softcap2: 1.5, temperature: 1.3, ..plain };
            divergence_case(r, (5, 9, 12, 33), capped, true);
        }
    });
    // 64 tokens to a chunk at this vocabulary.
    let mut r = Rig::new(5);
    r.tolerance = 1e-4;
    divergence_case(&mut r, (65, 1, 2, 65_537), HeadDivergence { weight: 0.5, ..HeadDivergence::default() }, false);
}

/// `n` rows of `k` distinct ids.
fn candidate_ids(r: &mut Rig, n: usize, k: usize, vocabulary: usize) -> View {
    let mut ids = Vec::new();
    for row in 0..n {
        let (first, step) = (r.rng.next() as usize % vocabulary, if row % 2 == 0 { 1 } else { vocabulary - 1 });
        ids.extend((0..k).map(|at| ((first + at * step) % vocabulary) as i32));
    }
    let flat = r.ints(&ids);
    View { rows: n as u64, cols: k as u64, row_stride: k as u64, ..flat }
}

fn candidates_case(
    r: &mut Rig,
    (n, d, vocabulary, k): (usize, usize, usize, usize),
    base: HeadCandidates,
    biased: bool,
) {
    let HeadCandidates { temperature, softcap, scale, .. } = base;
    let (x, w) = (r.mat(n, d), r.mat(vocabulary, d));
    let bias = biased.then(|| r.mat(1, vocabulary));
    let ids = candidate_ids(r, n, k, vocabulary);
    let (logp, tail, lse) = (r.mat(n, k), r.some(1, n), r.mat(1, n));
    r.check(HeadCandidates { x, w, bias, ids, logp, ..base });
    r.check(HeadCandidates { x, w, bias, ids, logp, tail, lse: Some(lse), ..base });
    let (dlogp, dtail, dx) = (r.some(n, k), r.some(1, n), r.mat(n, d));
    let (dw, dbias) = (r.some(vocabulary, d), r.some(1, vocabulary));
    let back = HeadCandidatesBackward {
        x,
        w,
        ids,
        lse,
        bias,
        dlogp,
        dx,
        temperature,
        softcap,
        scale,
        ..HeadCandidatesBackward::default()
    };
    r.check(back);
    r.check(HeadCandidatesBackward { tail, dtail, dw, dbias, ..back });
    r.check(HeadCandidatesBackward { tail, dtail, dlogp: None, ..back });
    // Few: of many ids some are so near that f32 exchanges them.
    let k = k.min(5);
    let (found, logp) = (candidate_ids(r, n, k, vocabulary), r.mat(n, k));
    r.check(HeadTopk { x, w, bias, ids: found, logp, tail, temperature, softcap, scale });
}

#[test]
fn candidates_and_the_most_probable_ids_match_across_chunks() {
    each_layout(|r| {
        r.tolerance = 1e-4;
        let plain = HeadCandidates { scale: 0.3, ..HeadCandidates::default() };
        candidates_case(r, (70, 16, 97, 5), plain, false);
        candidates_case(r, (5, 9, 33, 32), HeadCandidates { softcap: 2.0, temperature: 1.3, ..plain }, true);
        candidates_case(r, (5, 9, 3, 3), plain, true);
        candidates_case(r, (5, 9, 200, 1), plain, true);
    });
    let mut r = Rig::new(5);
    r.tolerance = 1e-4;
    candidates_case(&mut r, (65, 2, 65_537, 30_000), HeadCandidates::default(), false);
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
            let (kept_logp, kept_entropy) = (r.some(1, 60), r.some(1, 60));
            let base = Sample { logits, noise, token, logp, kept_logp, kept_entropy, ..Sample::default() };
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
