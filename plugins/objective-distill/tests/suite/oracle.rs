//! Divergences and gradients by logits, computed by TRL and torchtune: `distill.json`. Every case is compared. The test does the
//! backend's part: from logits to the log-probabilities of candidates, and back. All ids but the teacher's least probable one are
//! candidates, so that the divergence over candidates and tail is the whole one.

use super::{
    Distillation,
    support::{create, file, near, numbers, rows},
};
use plugin_api::prelude::*;
use serde_json::{Value, json};

/// Logits of both models at the tokens that a case counts.
struct Tokens {
    student: Vec<Vec<f64>>,
    teacher: Vec<Vec<f64>>,
    /// Indices of the counted tokens among all, row-major.
    counted: Vec<usize>,
    sequences: usize,
    all: usize,
    vocabulary: usize,
}

impl Tokens {
    fn of(input: &Value, masked: bool) -> Tokens {
        let flat = |name: &str| input[name].as_array().unwrap().iter().flat_map(rows).collect::<Vec<_>>();
        let labels: Vec<f64> = input["labels"].as_array().unwrap().iter().flat_map(numbers).collect();
        let (student, teacher) = (flat("student"), flat("teacher"));
        let counted: Vec<usize> = (0..labels.len()).filter(|n| !masked || labels[*n] != -100.0).collect();
        let sequences = input["labels"].as_array().unwrap().len();
        let (all, vocabulary) = (labels.len(), student[0].len());
        Tokens { student, teacher, counted, sequences, all, vocabulary }
    }
}

fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let scaled: Vec<f64> = logits.iter().map(|x| x / temperature).collect();
    let most = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = most + scaled.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
    scaled.iter().map(|x| x - lse).collect()
}

/// The sum over counted tokens, and its gradient by the student's logits: `[all][vocabulary]`.
fn ours(tokens: &Tokens, weight: f64, temperature: f64) -> (f64, Vec<Vec<f64>>) {
    let (count, k) = (tokens.counted.len(), tokens.vocabulary - 1);
    let log_p: Vec<_> = tokens.counted.iter().map(|n| log_softmax(&tokens.student[*n], temperature)).collect();
    let log_q: Vec<_> = tokens.counted.iter().map(|n| log_softmax(&tokens.teacher[*n], temperature)).collect();
    // The teacher's ids, the most probable first; the last one is the tail.
    let ids: Vec<Vec<usize>> = log_q
        .iter()
        .map(|q| {
            let mut ids: Vec<usize> = (0..q.len()).collect();
            ids.sort_by(|a, b| q[*b].total_cmp(&q[*a]));
            ids
        })
        .collect();
    let candidates = |of: &[Vec<f64>]| -> Vec<f64> {
        of.iter().zip(&ids).flat_map(|(p, ids)| ids[..k].iter().map(|id| p[*id])).collect()
    };
    let tail = |of: &[Vec<f64>]| -> Vec<f64> { of.iter().zip(&ids).map(|(p, ids)| p[ids[k]]).collect() };
    let wide = |name: &'static str, data: Vec<f64>, differentiable| plugin_api::batch::Array {
        name: name.into(),
        scope: Scope::TOKEN,
        differentiable,
        cols: k,
        data: data.into(),
    };
    let batch = Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, count as f64])
        .with("mask", Scope::TOKEN, vec![1.0; count])
        .with_array(wide("candidates", candidates(&log_p), true))
        .with_array(wide("teacher.candidates", candidates(&log_q), false))
        .with_statistic("tail", Scope::TOKEN, tail(&log_p))
        .with("teacher.tail", Scope::TOKEN, tail(&log_q));
    let options = json!({"beta": weight, "temperature": temperature, "top_k": k});
    let term = create::<Distillation>(options).unwrap().loss(&batch).unwrap().terms.remove(0);
    let cotangents = |name: &str| &term.cotangents.iter().find(|(own, _)| own == name).unwrap().1;
    let (of_ids, of_tail) = (cotangents("candidates"), cotangents("tail"));
    let mut gradient = vec![vec![0.0; tokens.vocabulary]; tokens.all];
    for (row, n) in tokens.counted.iter().enumerate() {
        let by_id: Vec<f64> = of_ids[row * k..(row + 1) * k].iter().copied().chain([of_tail[row]]).collect();
        let total: f64 = by_id.iter().sum();
        for (d, id) in by_id.iter().zip(&ids[row]) {
            gradient[*n][*id] = (d - total * log_p[row][*id].exp()) / temperature;
        }
    }
    (term.sum, gradient)
}

/// Sum of the teacher's entropies at the counted tokens, which torchtune's forward loss leaves in.
fn entropy(tokens: &Tokens) -> f64 {
    let one = |n: &usize| -> f64 { log_softmax(&tokens.teacher[*n], 1.0).iter().map(|q| -q.exp() * q).sum() };
    tokens.counted.iter().map(one).sum()
}

fn compare(name: &str, found: (f64, Vec<Vec<f64>>), expected: &Value, divisor: f64, relative: f64) {
    near(name, found.0 / divisor, expected["loss"].as_f64().unwrap(), relative);
    let gradient: Vec<Vec<f64>> = expected["grad_student"].as_array().unwrap().iter().flat_map(rows).collect();
    assert_eq!(gradient.len(), found.1.len(), "{name}");
    // In f32 the differences are those of numbers near 1, whatever their own size.
    let scale = if relative > 1e-6 { 1.0 } else { 0.0 };
    for (n, (ours, theirs)) in found.1.iter().zip(&gradient).enumerate() {
        for (ours, theirs) in ours.iter().zip(theirs) {
            let allowed = relative * theirs.abs().max(scale) + 1e-11;
            assert!((ours / divisor - theirs).abs() <= allowed, "{name}, token {n}: {} and {theirs}", ours / divisor);
        }
    }
}

/// Catches forward and reverse exchanged, the weight of the mixture exchanged, a factor of T or T squared, and a gradient that
/// leaves out the tail.
#[test]
fn every_case_of_trl_and_torchtune_is_met() {
    let oracle = file("distill.json");
    let cases = oracle["cases"].as_array().unwrap();
    for (index, case) in cases.iter().enumerate() {
        let (name, input) = (format!("case {index}"), &oracle["inputs"][case["input"].as_str().unwrap()]);
        if case["peer"].as_str().unwrap().starts_with("torchtune") {
            let tokens = Tokens::of(input, true);
            // Cross-entropy with the teacher, the reverse divergence, or a mean of both.
            let (forward, reverse) = (ours(&tokens, 0.0, 1.0), ours(&tokens, 1.0, 1.0));
            let share = match case["kind"].as_str().unwrap() {
                "forward" => 1.0,
                "reverse" => 0.0,
                _ => case["sym_kd_ratio"].as_f64().unwrap(),
            };
            let mixed = |one: f64, other: f64| share * one + (1.0 - share) * other;
            let both = forward.1.iter().zip(&reverse.1);
            let gradient = both.map(|(f, r)| f.iter().zip(r).map(|(f, r)| mixed(*f, *r)).collect()).collect();
            let sum = mixed(forward.0 + entropy(&tokens), reverse.0);
            compare(&name, (sum, gradient), &case["expected"], tokens.counted.len() as f64, 2e-5);
            continue;
        }
        let masked = case["masked"].as_bool().unwrap();
        let tokens = Tokens::of(input, masked);
        let divisor = match (case["reduction"].as_str().unwrap(), masked) {
            ("sum", _) => 1.0,
            ("mean", _) => (tokens.counted.len() * tokens.vocabulary) as f64,
            (_, true) => tokens.counted.len() as f64,
            (_, false) => tokens.sequences as f64,
        };
        let number = |key: &str| case[key].as_f64().unwrap();
        compare(&name, ours(&tokens, number("beta"), number("temperature")), &case["expected"], divisor, 1e-9);
    }
    assert!(cases.len() >= 22, "{} cases", cases.len());
}
