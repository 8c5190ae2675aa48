//! Sampling. Noise and logits are chosen so that neither the draw nor the number of tokens that `top_p` keeps depends on rounding:
//! slightly more or less of `noise` and `top_p` gives the same token from the same tokens.

use crate::backend::{
    case::Case,
    family::{Family, Wrong},
    stage::{Layout, run},
    tensor::Tensor,
};
use plugin_api::{
    Code, Error, Result,
    abi::DType,
    backend::{Op, Session, ops::Sample},
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[Sample::SPEC],
    cases,
    rules: &[],
    wrong: Wrong {
        values: &[
            ("sample", "temperature", -1.0, &[Code::INVALID_ARGUMENT]),
            ("sample", "top_k", -1.0, &[Code::INVALID_ARGUMENT]),
            ("sample", "top_p", 0.0, &[Code::INVALID_ARGUMENT]),
            ("sample", "top_p", 1.5, &[Code::INVALID_ARGUMENT]),
        ],
        ..Wrong::NONE
    },
};

/// How much noise and `top_p` may change without another draw.
const MARGIN: f64 = 1e-4;

fn case(name: &str, op: Sample, logits: &Tensor, noise: Vec<f64>) -> Case {
    let rows = logits.rows;
    Case::new(format!("{rows} rows of {}{name}", logits.cols), &op)
        .with("logits", logits.clone())
        .with("noise", Tensor::row(noise))
        .out("token", 1, rows)
        .out("logp", 1, rows)
        .out("kept_logp", 1, rows)
        .out("kept_entropy", 1, rows)
}

/// Uniform in [0, 1), exact in f32, so that no rounding makes it 1.
fn noise_value(rng: &mut SplitMix64) -> f64 {
    (rng.bits() >> 40) as f64 / f64::from(1 << 24)
}

/// Logits that are multiples of 1/8, so that ties are frequent and equal in every dtype.
fn logits_row(rng: &mut SplitMix64, vocab: usize) -> Vec<f64> {
    let mut logits: Vec<f64> = (0..vocab).map(|_| (8.0 * 3.0 * rng.normal()).round() / 8.0).collect();
    if vocab > 10_000 {
        // Otherwise each token would be less probable than the margin, and no draw would be steady.
        let spread = |at: usize| at % 1_601 == 7;
        let rest = logits.iter_mut().enumerate().filter(|(at, _)| !spread(*at));
        rest.for_each(|(_, logit)| *logit -= 256.0);
    }
    logits
}

/// The tokens that the reference draws, and their log-probabilities among the kept ones.
fn drawn(reference: &mut dyn Session, compute: DType, case: &Case) -> Result<[Vec<f64>; 2]> {
    let found = run(reference, case, compute, Layout::Dense)?;
    Ok(["token", "kept_logp"].map(|name| found.output(name).map(|t| t.data.clone()).unwrap_or_default()))
}

/// A case with random logits and noise; redraws those of rows whose result depends on rounding.
fn steady(
    rng: &mut SplitMix64,
    reference: &mut dyn Session,
    compute: DType,
    name: &str,
    op: Sample,
    (rows, vocab): (usize, usize),
) -> Result<Case> {
    let data = (0..rows).flat_map(|_| logits_row(rng, vocab)).collect();
    let mut logits = Tensor { rows, cols: vocab, data, dtype: None };
    let mut noise: Vec<f64> = (0..rows).map(|_| noise_value(rng)).collect();
    for _ in 0..50 {
        let exact = drawn(reference, compute, &case(name, op, &logits, noise.clone()))?;
        let mut shaken = Vec::new();
        for (by, p) in [(MARGIN, op.top_p), (-MARGIN, op.top_p), (0.0, op.top_p - MARGIN), (0.0, op.top_p + MARGIN)] {
            let moved = noise.iter().map(|u| (u + by).clamp(0.0, 1.0 - 1e-6)).collect();
            let op = Sample { top_p: if op.top_p < 1.0 { p } else { 1.0 }, ..op };
            shaken.push(drawn(reference, compute, &case(name, op, &logits, moved))?);
        }
        let differs = |b: usize, of: usize| shaken.iter().any(|s| s[of][b] != exact[of][b]);
        let shaky: Vec<usize> = (0..rows).filter(|&b| differs(b, 0) || differs(b, 1)).collect();
        if shaky.is_empty() {
            return Ok(case(name, op, &logits, noise));
        }
        for b in shaky {
            noise[b] = noise_value(rng);
            logits.data[b * vocab..(b + 1) * vocab].copy_from_slice(&logits_row(rng, vocab));
        }
    }
    Err(Error::internal(format!("sample{name}: no logits and noise found that rounding leaves alone")))
}

fn cases(rng: &mut SplitMix64, reference: &mut dyn Session, compute: DType) -> Result<Vec<Case>> {
    let plain = Sample::default();
    let settings = [
        ("", plain),
        (", greedy", Sample { temperature: 0.0, ..plain }),
        (", greedy whatever top_k", Sample { temperature: 0.0, top_k: 2, top_p: 0.3, ..plain }),
        (", hot", Sample { temperature: 3.0, ..plain }),
        (", top_k 1", Sample { top_k: 1, ..plain }),
        (", top_k 3", Sample { top_k: 3, ..plain }),
        (", top_k beyond the vocabulary", Sample { top_k: 1 << 40, ..plain }),
        (", top_p", Sample { top_p: 0.6, ..plain }),
        (", top_p tiny", Sample { top_p: 0.01, ..plain }),
        (", all cuts", Sample { temperature: 0.7, top_k: 4, top_p: 0.8, ..plain }),
    ];
    let mut cases = Vec::new();
    let cuts = Sample { temperature: 1.5, top_k: 5, top_p: 0.9, ..plain };
    cases.push(steady(rng, reference, compute, ", with and without the kept distribution", cuts, (9, 11))?.vary());
    for (name, op) in settings {
        for (rows, vocab) in [(0, 5), (1, 1), (24, 7), (3, 5000), (2, 32_003)] {
            cases.push(steady(rng, reference, compute, name, op, (rows, vocab))?);
        }
    }
    let tied = Tensor::generate(4, 6, || 0.5);
    cases.push(case(", all equal, greedy", Sample { temperature: 0.0, ..plain }, &tied, vec![0.0, 0.3, 0.6, 0.9]));
    cases.push(case(", all equal, top_k 3", Sample { top_k: 3, ..plain }, &tied, vec![0.0, 0.2, 0.5, 0.9]));
    // Scratch memory for a row of this shape would exceed any memory, and there are no rows.
    let none = Tensor::generate(0, 1 << 40, || 0.5);
    cases.push(case(", no row of huge columns", plain, &none, Vec::new()));
    Ok(cases)
}
