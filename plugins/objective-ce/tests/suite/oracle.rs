//! Losses and gradients computed by other projects' code, with gradients by the logits: `sft.json`.
//!
//! The test does the host's part: it shifts, computes statistics from logits, sums over micro-batches, divides once, and chains
//! the cotangents back to the logits. The tests of `objective-sft` include this file too: labels of -100 are prompts, and both learn from the
//! remaining tokens.

use super::{
    Plugin,
    support::{create, file, near},
};
use plugin_api::prelude::*;
use serde::Deserialize;
use serde_json::json;

/// `[micro-batch]` of `[row][position]` of logits.
type Logits = Vec<Vec<Vec<f64>>>;

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    vocab_size: usize,
    micro_batches: Vec<MicroBatch>,
    expected: Expected,
}

#[derive(Deserialize)]
struct MicroBatch {
    labels: Vec<Vec<i64>>,
    logits: Logits,
}

#[derive(Deserialize)]
struct Expected {
    mean_losses: Vec<f64>,
    float32_mean_losses: Vec<f64>,
    mean_of_means: f64,
    num_items_in_batch: f64,
    normalised_losses: Vec<f64>,
    total_loss: f64,
    grad_of_total: Vec<Logits>,
    label_smoothing: f64,
    smoothed_mean_losses: Vec<f64>,
    grad_of_smoothed_sum: Vec<Logits>,
}

fn cases() -> Vec<Case> {
    serde_json::from_value::<File>(file("sft.json")).unwrap().cases
}

const IGNORED: i64 = -100;

impl MicroBatch {
    /// Predictions in row order: logits at t, label at t + 1.
    fn predictions(&self) -> impl Iterator<Item = (&Vec<f64>, i64)> {
        let rows = self.logits.iter().zip(&self.labels);
        rows.flat_map(|(logits, labels)| logits.iter().zip(labels.iter().skip(1).copied()))
    }

    /// The batch that a host would pass: rows become packed sequences, one token shorter.
    fn batch(&self) -> Batch<'static> {
        let mut offsets = vec![0.0];
        for row in &self.labels {
            offsets.push(offsets[offsets.len() - 1] + (row.len() - 1) as f64);
        }
        let mask: Vec<f64> = self.predictions().map(|(_, y)| f64::from(y != IGNORED)).collect();
        let per_token = |of: fn(&[f64], usize) -> f64| -> Vec<f64> {
            // Values behind the mask must not matter.
            self.predictions().map(|(x, y)| if y == IGNORED { f64::NAN } else { of(x, y as usize) }).collect()
        };
        Batch::new()
            .with("offsets", Scope::BATCH, offsets)
            .with("mask", Scope::TOKEN, mask)
            .with_statistic("logp", Scope::TOKEN, per_token(|x, y| x[y] - lse(x)))
            .with_statistic("lse", Scope::TOKEN, per_token(|x, _| lse(x)))
            .with_statistic("mean_logit", Scope::TOKEN, per_token(|x, _| x.iter().sum::<f64>() / x.len() as f64))
    }

    /// The gradient of the logits from cotangents of the statistics, times `scale`; the last position predicts nothing.
    fn chain(&self, term_cotangents: &[(String, Vec<f64>)], scale: f64) -> Logits {
        let of = |name: &str, n: usize| term_cotangents.iter().find(|(s, _)| s == name).map_or(0.0, |(_, c)| c[n]);
        let mut n = 0;
        let mut gradient: Logits =
            self.logits.iter().map(|row| row.iter().map(|x| vec![0.0; x.len()]).collect()).collect();
        for (row, labels) in self.labels.iter().enumerate() {
            for t in 0..labels.len() - 1 {
                let x = &self.logits[row][t];
                let (logp, lse_bar, mean) = (of("logp", n), of("lse", n), of("mean_logit", n));
                n += 1;
                for (v, g) in gradient[row][t].iter_mut().enumerate() {
                    let p = (x[v] - lse(x)).exp();
                    let hit = f64::from(labels[t + 1] == v as i64);
                    *g = scale * (logp * (hit - p) + lse_bar * p + mean / x.len() as f64);
                }
            }
        }
        gradient
    }
}

fn lse(x: &[f64]) -> f64 {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + x.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
}

fn near_all(what: &str, found: &Logits, expected: &Logits) {
    let flat = |logits: &Logits| -> Vec<f64> { logits.iter().flatten().flatten().copied().collect() };
    let (found, expected) = (flat(found), flat(expected));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        near(&format!("{what}[{i}]"), *f, *e, 1e-9);
    }
}

/// Sum and supervised tokens of each micro-batch, and the gradient of `scale(tokens) * sum`.
fn run(case: &Case, smoothing: f64, scale: impl Fn(f64) -> f64) -> Vec<(f64, f64, Logits)> {
    let objective = create::<Plugin>(json!({"label_smoothing": smoothing})).unwrap();
    let one = |micro: &MicroBatch| {
        let batch = micro.batch();
        let loss = objective.loss(&batch).unwrap();
        let term = &loss.terms[0];
        let tokens = batch.mask().unwrap().iter().sum();
        (term.sum, tokens, micro.chain(&term.cotangents, scale(tokens) * term.coefficient))
    };
    case.micro_batches.iter().map(one).collect()
}

#[test]
fn gotcha_01_sums_over_one_denominator_match_the_trainer_of_transformers() {
    let cases = cases();
    // Some cases have prompts: otherwise a loss over all tokens would pass.
    let prompted = |case: &Case| case.micro_batches.iter().any(|m| m.predictions().any(|(_, y)| y == IGNORED));
    assert!(cases.iter().any(prompted));
    for case in cases {
        let (name, expected) = (&case.name, &case.expected);
        let items = expected.num_items_in_batch;
        let runs = run(&case, 0.0, |_| 1.0 / items);
        near(&format!("{name}: tokens"), runs.iter().map(|r| r.1).sum(), items, 0.0);
        near(&format!("{name}: total"), runs.iter().map(|r| r.0).sum::<f64>() / items, expected.total_loss, 1e-9);
        for (m, (sum, tokens, gradient)) in runs.iter().enumerate() {
            near(&format!("{name}[{m}]: share"), sum / items, expected.normalised_losses[m], 1e-9);
            near(&format!("{name}[{m}]: mean"), sum / tokens, expected.mean_losses[m], 1e-9);
            near(&format!("{name}[{m}]: f32 mean"), sum / tokens, expected.float32_mean_losses[m], 2e-5);
            near_all(&format!("{name}[{m}]: gradient"), gradient, &expected.grad_of_total[m]);
        }
    }
}

/// The references distinguish the two conventions, so the test above can fail, unless every micro-batch has equally many tokens.
#[test]
fn gotcha_01_a_mean_of_means_differs() {
    for case in cases().iter().filter(|c| c.micro_batches.len() > 1) {
        let runs = run(case, 0.0, |_| 1.0);
        let uneven = runs.iter().any(|(_, tokens, _)| *tokens != runs[0].1);
        let means: Vec<f64> = runs.iter().map(|(sum, tokens, _)| sum / tokens).collect();
        let mean_of_means = means.iter().sum::<f64>() / means.len() as f64;
        near(&case.name, mean_of_means, case.expected.mean_of_means, 1e-9);
        assert_eq!((mean_of_means - case.expected.total_loss).abs() > 1e-6, uneven, "{}", case.name);
    }
}

/// The reference's smoothed losses are means per micro-batch, and its gradient is that of their sum.
#[test]
fn label_smoothing_matches_the_label_smoother_of_transformers() {
    for case in cases() {
        let expected = &case.expected;
        for (m, (sum, tokens, gradient)) in
            run(&case, expected.label_smoothing, |tokens| 1.0 / tokens).iter().enumerate()
        {
            let name = format!("{}[{m}] of {} tokens", case.name, case.vocab_size);
            near(&name, sum / tokens, expected.smoothed_mean_losses[m], 1e-9);
            near_all(&name, gradient, &expected.grad_of_smoothed_sum[m]);
        }
    }
}
