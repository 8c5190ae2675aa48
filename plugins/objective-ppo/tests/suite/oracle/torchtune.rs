//! How torchtune's whitening differs from ours: it adds 1e-8 to the number of tokens under the mask, in the mean and in the
//! variance. The effect on each number follows from the numbers themselves.

use super::{Rows, kept};
use plugin_api::groups::whiten;

/// Added to counts.
const EPSILON: f64 = 1e-8;

/// Whitening with `epsilon` added to the count of tokens, `k = n + epsilon`: `mean = sum x / k`,
/// `var = (sum (x - mean)^2 / k) k / (k - 1)`, and `(x - mean) / sqrt(var + 1e-8)`, plus the mean if it is kept. A single token has no
/// variance without an epsilon.
fn whitened(x: &[f64], mask: &[f64], keeps_mean: bool, epsilon: f64) -> Vec<f64> {
    let sum = |f: &dyn Fn(f64) -> f64| x.iter().zip(mask).filter(|(_, m)| **m == 1.0).map(|(x, _)| f(*x)).sum::<f64>();
    let count = sum(&|_| 1.0) + epsilon;
    let mean = sum(&|x| x) / count;
    let variance = if count == 1.0 { 0.0 } else { sum(&|x| (x - mean).powi(2)) / (count - 1.0) };
    let scale = (variance + 1e-8).sqrt().recip();
    x.iter().map(|x| (x - mean) * scale + if keeps_mean { mean } else { 0.0 }).collect()
}

/// What rounding may do to whitened numbers: sums over the mask, then the distance from the mean, scaled.
fn rounding(x: &[f64], mask: &[f64]) -> f64 {
    let supervised = || x.iter().zip(mask).filter(|(_, m)| **m == 1.0).map(|(x, _)| *x);
    let (count, largest) = (supervised().count() as f64, supervised().map(f64::abs).fold(0.0, f64::max));
    let spread = supervised().map(|x| (x - supervised().sum::<f64>() / count).powi(2)).sum::<f64>();
    let scale = (spread / (count - 1.0).max(1.0) + 1e-8).sqrt().recip();
    8.0 * count.max(1.0).sqrt() * f64::EPSILON * largest * (scale + 1.0)
}

/// Compares `found`, our whitening of `x`, with torchtune's `expected` where the mask is 1, after adding the effect of
/// torchtune's epsilon. Returns the first element that is too far away.
fn disagreement(expected: &[f64], found: &[f64], x: &[f64], mask: &Rows, keeps_mean: bool) -> Option<String> {
    let flat = mask.concat();
    let (with, without) = (whitened(x, &flat, keeps_mean, EPSILON), whitened(x, &flat, keeps_mean, 0.0));
    let ours: Vec<f64> = found.iter().zip(with.iter().zip(&without)).map(|(f, (a, b))| f + (a - b)).collect();
    let allowed = rounding(x, &flat);
    let pairs = kept(expected, mask).into_iter().zip(kept(&ours, mask)).enumerate();
    let far = pairs.into_iter().find(|(_, (e, o))| (e - o).abs() > allowed || e.is_nan() != o.is_nan());
    far.map(|(at, (e, o))| format!("[{at}]: {o}, expected {e} within {allowed:e}"))
}

/// Panics if [`disagreement`] finds one.
#[track_caller]
pub fn assert_near(what: &str, expected: &Rows, found: &[f64], x: &[f64], mask: &Rows, keeps_mean: bool) {
    if let Some(far) = disagreement(&expected.concat(), found, x, mask, keeps_mean) {
        panic!("{what}{far}");
    }
}

/// Numbers of other sizes, spreads and masks, as torchtune computes them: the comparison holds for all of them, however large the
/// effect of the epsilon is, and a slightly wrong whitening fails for each.
///
/// Catches an allowance that fits only the numbers at hand, and one so wide that another variance passes.
#[test]
fn the_effect_of_torchtunes_epsilon_follows_from_the_numbers() {
    let mut state = 7u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    let mut largest: f64 = 0.0;
    for (rows, columns, spread, middle) in [
        (1, 2, 1.0, 0.0),
        (2, 3, 5.0, 40.0),
        (3, 7, 0.01, 3.0),
        (5, 64, 1.0, -2.0),
        (8, 200, 30.0, 1e3),
        (4, 9, 1e-4, 0.1),
    ] {
        for keeps in [true, false] {
            let x: Vec<f64> = (0..rows * columns).map(|_| middle + spread * (random() - 0.5)).collect();
            // Masks of every length from two tokens upwards.
            let mask: Rows = (0..rows)
                .map(|r| (0..columns).map(|c| f64::from(u8::from(c < 2 + (columns - 2) * (r + 1) / rows))).collect())
                .collect();
            let flat = mask.concat();
            let theirs = whitened(&x, &flat, keeps, EPSILON);
            let what = format!("{rows} x {columns}, {middle} +- {spread}, mean kept {keeps}");
            let mut found = x.clone();
            whiten(&mut found, &flat, keeps);
            assert_eq!(disagreement(&theirs, &found, &x, &mask, keeps), None, "{what}");
            let effect =
                theirs.iter().zip(&whitened(&x, &flat, keeps, 0.0)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            largest = largest.max(effect);
            let count = flat.iter().sum::<f64>();
            let by = |factor: f64| found.iter().map(|x| x * factor).collect::<Vec<_>>();
            // The population's variance, and a scale that is off by a billionth.
            for wrong in [by(((count - 1.0) / count).sqrt().recip()), by(1.0 + 1e-9)] {
                assert!(disagreement(&theirs, &wrong, &x, &mask, keeps).is_some(), "{what}: a wrong one passes");
            }
            let mut other = x.clone();
            whiten(&mut other, &vec![1.0; flat.len()], keeps);
            if flat.contains(&0.0) {
                assert!(disagreement(&theirs, &other, &x, &mask, keeps).is_some(), "{what}: no mask");
            }
        }
    }
    assert!(largest > 1e-8, "the epsilon shows nowhere: {largest:e}");
    // A single token: torchtune computes almost no variance for it, and this plugin none.
    let (x, mask) = ([3.0, 5.0], vec![vec![1.0, 0.0]]);
    let mut found = x.to_vec();
    whiten(&mut found, &mask[0], false);
    assert_eq!(disagreement(&whitened(&x, &mask[0], false, EPSILON), &found, &x, &mask, false), None);
}
