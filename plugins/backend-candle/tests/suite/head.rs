//! The head in all its forms, and sampling.

use crate::rig::{self, Rig, each_layout};
use plugin_api::backend::ops::*;

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
