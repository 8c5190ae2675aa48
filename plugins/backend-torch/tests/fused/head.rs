//! The language-model head.

use super::support::{Bench, DTYPES, accumulator, numbers, same};
use plugin_api::backend::{
    DType, View,
    ops::{HeadBackward, HeadFused, HeadStats},
};

/// What a case varies.
#[derive(Clone, Copy)]
struct Case {
    tokens: u64,
    vocab: u64,
    temperature: f64,
    softcap: f64,
    scale: f64,
    /// Added to every logit but the second, by the bias.
    shift: f64,
    kept: bool,
}

const PLAIN: Case = Case { tokens: 3, vocab: 50, temperature: 1.0, softcap: 0.0, scale: 1.0, shift: 0.0, kept: false };

const DIM: u64 = 6;

fn run(bench: &mut Bench, dtype: DType, case: Case) -> Vec<(&'static str, View)> {
    let Case { tokens, vocab, temperature, softcap, scale, shift, kept } = case;
    let (n, acc) = (tokens as usize, accumulator(dtype));
    let x = bench.dense(dtype, (tokens, DIM), &numbers(1, n * DIM as usize));
    let w: Vec<f64> = numbers(2, (vocab * DIM) as usize).iter().map(|x| 3.0 * x).collect();
    let w = bench.dense(dtype, (vocab, DIM), &w);
    let bias: Vec<f64> =
        numbers(3, vocab as usize).iter().enumerate().map(|(id, x)| if id == 1 { *x } else { x + shift }).collect();
    let bias = Some(bench.dense(dtype, (1, vocab), &bias));
    let targets: Vec<i32> = (0..tokens).map(|token| (token * 7 % vocab) as i32).collect();
    let targets = bench.integers(&targets);
    let row = |bench: &mut Bench, seed| bench.dense(acc, (1, tokens), &numbers(seed, n));
    let [logp, lse, entropy, mean_logit] = [4, 5, 6, 7].map(|seed| row(bench, seed));
    let [dlogp, dlse, dmean, dentropy] = [8, 9, 10, 11].map(|seed| row(bench, seed));
    let top1 = bench.integers(&vec![-1; n]);
    let logits = bench.dense(dtype, (tokens, vocab), &vec![7.0; n * vocab as usize]);
    let stats = HeadStats {
        x,
        w,
        targets,
        bias,
        logp,
        lse: Some(lse),
        entropy: Some(entropy),
        temperature,
        softcap,
        scale,
        ..HeadStats::default()
    };
    bench.run(HeadStats { mean_logit: Some(mean_logit), top1: Some(top1), logits: Some(logits), ..stats });
    let gradients = |bench: &mut Bench, seed| {
        let dx = bench.dense(dtype, (tokens, DIM), &numbers(seed, n * DIM as usize));
        let dw = bench.dense(acc, (vocab, DIM), &numbers(seed + 1, (vocab * DIM) as usize));
        (dx, dw, bench.dense(acc, (1, vocab), &numbers(seed + 2, vocab as usize)))
    };
    let (dx, dw, dbias) = gradients(bench, 20);
    bench.run(HeadBackward {
        x,
        w,
        targets,
        lse,
        bias,
        logits: Some(logits).filter(|_| kept),
        entropy: Some(entropy),
        dlogp: Some(dlogp),
        dlse: Some(dlse),
        dmean_logit: Some(dmean),
        dentropy: Some(dentropy),
        dx,
        dw: Some(dw),
        dbias: Some(dbias),
        temperature,
        softcap,
        scale,
    });
    let (fused_dx, fused_dw, fused_dbias) = gradients(bench, 30);
    let fused_logp = row(bench, 40);
    let fused = HeadFused {
        x,
        w,
        targets,
        dlogp,
        bias,
        dlse: Some(dlse),
        logp: fused_logp,
        dx: fused_dx,
        ..HeadFused::default()
    };
    bench.run(HeadFused { dw: Some(fused_dw), dbias: Some(fused_dbias), temperature, softcap, scale, ..fused });
    let statistics = [("logp", logp), ("lse", lse), ("entropy", entropy), ("mean_logit", mean_logit), ("top1", top1)];
    let backward = [("logits", logits), ("dx", dx), ("dw", dw), ("dbias", dbias)];
    let in_one =
        [("fused logp", fused_logp), ("fused dx", fused_dx), ("fused dw", fused_dw), ("fused dbias", fused_dbias)];
    statistics.into_iter().chain(backward).chain(in_one).collect()
}

/// Catches a vocabulary whose end is left out or read twice, a temperature, cap or scale that is forgotten or applied twice, and
/// sums that overflow.
#[test]
fn heads_of_any_vocabulary_and_shape_of_logits() {
    let mut cases: Vec<Case> = [1, 2, 3, 511, 1003, 2048, 5001].map(|vocab| Case { vocab, ..PLAIN }).into();
    cases.push(Case { temperature: 0.7, ..PLAIN });
    cases.push(Case { softcap: 2.0, ..PLAIN });
    cases.push(Case { softcap: 2.0, temperature: 1.7, scale: 0.3, vocab: 1003, ..PLAIN });
    cases.push(Case { softcap: 2.0, temperature: 1.7, kept: true, ..PLAIN });
    cases.push(Case { kept: true, vocab: 52, ..PLAIN });
    cases.push(Case { tokens: 0, ..PLAIN });
    // Two chunks on the processor, and blocks of one thread each that have nothing to read.
    cases.push(Case { tokens: 901, vocab: 5001, ..PLAIN });
    for case in cases {
        for dtype in if case.tokens > 100 { &DTYPES[..1] } else { &DTYPES } {
            let Case { tokens, vocab, temperature, softcap, scale, kept, .. } = case;
            let name =
                format!("{tokens} x {vocab}, temperature {temperature}, cap {softcap}, scale {scale}, kept {kept}");
            same(&name, *dtype, |bench| run(bench, *dtype, case));
        }
    }
}

/// Catches 0 times infinity where all logits but one are too low for any probability, and where they are infinite.
#[test]
fn heads_with_one_probable_token() {
    for shift in [-1e6, -1e30, f64::NEG_INFINITY] {
        same(&format!("shift {shift}"), DType::F32, |bench| {
            let outputs = run(bench, DType::F32, Case { shift, ..PLAIN });
            // Gradients of infinite logits are compared by the laws; here the statistics count.
            outputs.into_iter().take(5).collect()
        });
    }
}

/// Catches a statistic that is finite although no logit is.
#[test]
fn heads_without_a_finite_logit() {
    for value in [f64::NEG_INFINITY, f64::INFINITY, f64::NAN] {
        same(&format!("all logits {value}"), DType::F32, |bench| {
            let x = bench.dense(DType::F32, (2, 1), &[0.0, 0.0]);
            let w = bench.dense(DType::F32, (40, 1), &[0.0; 40]);
            let bias = Some(bench.dense(DType::F32, (1, 40), &[value; 40]));
            let targets = bench.integers(&[3, 4]);
            let row = |bench: &mut Bench| bench.dense(DType::F32, (1, 2), &[7.0; 2]);
            let (logp, lse, entropy) = (row(bench), row(bench), row(bench));
            let top1 = bench.integers(&[-1; 2]);
            let stats = HeadStats { x, w, targets, bias, logp, lse: Some(lse), ..HeadStats::default() };
            bench.run(HeadStats { entropy: Some(entropy), top1: Some(top1), ..stats });
            vec![("logp", logp), ("lse", lse), ("entropy", entropy), ("top1", top1)]
        });
    }
}

/// Catches ties that go to another id than the lowest.
#[test]
fn the_lowest_of_equal_logits_is_the_top() {
    for vocab in [1, 40, 513, 3000] {
        for ids in [vec![0, 1], vec![vocab - 1], vec![vocab / 2, vocab - 1], vec![vocab / 3 + 1, vocab / 2, vocab - 1]]
        {
            let ids: Vec<usize> = ids.into_iter().map(|id: usize| id.min(vocab - 1)).collect();
            let mut bias = vec![0.0; vocab];
            ids.iter().for_each(|&id| bias[id] = 5.0);
            let mut bench = Bench::open(true);
            let x = bench.dense(DType::F32, (1, 1), &[0.0]);
            let w = bench.dense(DType::F32, (vocab as u64, 1), &vec![0.0; vocab]);
            let bias = Some(bench.dense(DType::F32, (1, vocab as u64), &bias));
            let targets = bench.integers(&[0]);
            let logp = bench.dense(DType::F32, (1, 1), &[0.0]);
            let top1 = bench.integers(&[-1]);
            bench.run(HeadStats { x, w, targets, bias, logp, top1: Some(top1), ..HeadStats::default() });
            assert_eq!(bench.buffer(&top1), [ids[0] as f64], "{vocab}: {ids:?}");
        }
    }
}
