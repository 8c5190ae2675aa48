//! The divergence between two heads compared with TRL and torchtune (`distill.json`), through the reference and both paths: with the
//! identity as head weight, hidden states are logits.

use backend_candle::Candle;
use backend_reference::ReferenceBackend;
use plugin_api::backend::{Backend, DType, Op, Session, SessionOptions, View, ops::*};
use serde_json::Value;
use std::{env, path::PathBuf};

/// A session with its dtype and the relative error that it may have.
struct Desk {
    session: Box<dyn Session>,
    dtype: DType,
    tolerance: f64,
}

fn desks() -> Vec<Desk> {
    let candle = |path: &str| {
        let mut options = SessionOptions::default();
        options.options.insert("path".into(), path.into());
        Desk { session: Box::new(Candle::open(&options).unwrap()), dtype: DType::F32, tolerance: 2e-5 }
    };
    let reference = ReferenceBackend::open(&SessionOptions::default()).unwrap();
    let reference = Desk { session: Box::new(reference), dtype: DType::F64, tolerance: 1e-9 };
    vec![reference, candle("kernels"), candle("generic")]
}

impl Desk {
    fn matrix(&mut self, rows: usize, values: &[f64]) -> View {
        let buffer = self.session.alloc(self.dtype, values.len() as u64).unwrap();
        let bytes: Vec<u8> = match self.dtype {
            DType::F64 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
        };
        self.session.upload(buffer, 0, &bytes).unwrap();
        View::dense(buffer, self.dtype, rows as u64, (values.len() / rows) as u64)
    }

    fn read(&mut self, view: View) -> Vec<f64> {
        let size = self.dtype.size().unwrap();
        let mut bytes = vec![0; view.len() as usize * size];
        self.session.download(view.buffer, view.offset, &mut bytes).unwrap();
        let value = |b: &[u8]| match self.dtype {
            DType::F64 => f64::from_le_bytes(b.try_into().unwrap()),
            _ => f64::from(f32::from_le_bytes(b.try_into().unwrap())),
        };
        bytes.chunks_exact(size).map(value).collect()
    }

    fn run(&mut self, op: impl Op) {
        op.with_call(|call| self.session.invoke(call)).unwrap();
    }

    /// Divergences of each row, and the gradient by the first logits for the cotangents `dkl` of `kl`.
    fn divergence(
        &mut self,
        [student, teacher]: [&[Vec<f64>]; 2],
        (weight, temperature): (f64, f64),
        dkl: &[f64],
    ) -> (Vec<f64>, Vec<f64>) {
        let (tokens, vocabulary) = (student.len(), student[0].len());
        let identity: Vec<f64> =
            (0..vocabulary * vocabulary).map(|at| f64::from(u8::from(at % (vocabulary + 1) == 0))).collect();
        let (x, x2) = (self.matrix(tokens, &student.concat()), self.matrix(tokens, &teacher.concat()));
        let (w, w2) = (self.matrix(vocabulary, &identity), self.matrix(vocabulary, &identity));
        let [kl, lse, lse2] = [0; 3].map(|_| self.matrix(1, &vec![f64::NAN; tokens]));
        let forward = HeadDivergence { x, w, x2, w2, kl, weight, temperature, ..HeadDivergence::default() };
        self.run(HeadDivergence { lse: Some(lse), lse2: Some(lse2), ..forward });
        let (dkl, dx) = (self.matrix(1, dkl), self.matrix(tokens, &vec![f64::NAN; tokens * vocabulary]));
        let backward =
            HeadDivergenceBackward { x, w, x2, w2, lse, lse2, dkl, dx, weight, temperature, ..Default::default() };
        self.run(backward);
        (self.read(kl), self.read(dx))
    }

    #[track_caller]
    fn near(&self, what: &str, found: f64, expected: f64) {
        let close = (found - expected).abs() <= self.tolerance * expected.abs().max(1.0);
        assert!(close, "{what} in {}: {found}, expected {expected}", self.dtype);
    }
}

/// `[row][token][id]` flattened to `[token][id]`.
fn logits(value: &Value) -> Vec<Vec<f64>> {
    let rows: Vec<Vec<Vec<f64>>> = serde_json::from_value(value.clone()).unwrap();
    rows.concat()
}

/// Entropy of the softmax.
fn entropy(z: &[f64]) -> f64 {
    let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
    z.iter().map(|z| (z - lse).exp() * (lse - z)).sum()
}

/// Catches forward and reverse exchanged, the mixture with the weights exchanged, a temperature that is forgotten or that also
/// multiplies the result by its square, and a gradient of another sign or without its mean.
///
/// What TRL divides by: `batchmean` with a mask by tokens, without by rows, `mean` by all elements. torchtune divides by tokens,
/// leaves the teacher's entropy out of the forward divergence, and its `symmetric` is the sum of both directions by their ratio.
#[test]
fn divergences_and_gradients_equal_trl_and_torchtune() {
    let own = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/references"));
    let path = env::var_os("TELOS_ORACLES").map_or_else(own, PathBuf::from).join("distill.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file: Value = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for desk in &mut desks() {
        for case in file["cases"].as_array().unwrap() {
            let input = &file["inputs"][case["input"].as_str().unwrap()];
            let (student, teacher) = (logits(&input["student"]), logits(&input["teacher"]));
            let labels: Vec<Vec<i64>> = serde_json::from_value(input["labels"].clone()).unwrap();
            let rows = labels.len() as f64;
            let masked = case["masked"].as_bool().unwrap_or(true);
            let mask: Vec<f64> = labels.concat().iter().map(|&y| f64::from(u8::from(!masked || y != -100))).collect();
            let divisor = match case["reduction"].as_str() {
                Some("sum") => 1.0,
                Some("mean") => (student.len() * student[0].len()) as f64,
                Some("batchmean") if !masked => rows,
                _ => mask.iter().sum(),
            };
            let temperature = case["temperature"].as_f64().unwrap_or(1.0);
            // Weights of the divergence, each with its share in the loss.
            let parts = match case["kind"].as_str() {
                Some("forward") => vec![(0.0, 1.0)],
                Some("reverse") => vec![(1.0, 1.0)],
                Some(_) => {
                    let ratio = case["sym_kd_ratio"].as_f64().unwrap();
                    vec![(0.0, ratio), (1.0, 1.0 - ratio)]
                }
                None => vec![(case["beta"].as_f64().unwrap(), 1.0)],
            };
            let tolerance = desk.tolerance;
            if case["dtype"] == "f32" {
                desk.tolerance = tolerance.max(2e-5);
            }
            let (mut loss, mut gradient) = (0.0, vec![0.0; student.len() * student[0].len()]);
            for (weight, share) in parts {
                let dkl: Vec<f64> = mask.iter().map(|m| share * m / divisor).collect();
                let (kl, dx) = desk.divergence([&student, &teacher], (weight, temperature), &dkl);
                let entropies = teacher.iter().map(|z| if weight == 0.0 { entropy(z) } else { 0.0 });
                let torchtune = f64::from(u8::from(case["kind"].is_string()));
                loss += kl.iter().zip(entropies).zip(&dkl).map(|((kl, h), d)| (kl + torchtune * h) * d).sum::<f64>();
                gradient.iter_mut().zip(dx).for_each(|(g, d)| *g += d);
            }
            let what = format!("{} {} {}", case["peer"], case["beta"], case["kind"]);
            desk.near(&what, loss, case["expected"]["loss"].as_f64().unwrap());
            for (found, expected) in gradient.iter().zip(logits(&case["expected"]["grad_student"]).concat()) {
                desk.near(&format!("gradient of {what}"), *found, expected);
            }
            desk.tolerance = tolerance;
            compared += 1;
        }
    }
    assert!(compared >= 3 * 22 || env::var_os("TELOS_ORACLES").is_some(), "{compared} cases");
}

/// Catches a mixture that approaches neither end: near weight 0 the divergence over the weight is KL(q || p), near 1 over one minus
/// the weight KL(p || q); it is symmetric at one half, never above the entropy of the weight, and 0 for equal models.
#[test]
fn the_mixture_lies_between_its_ends() {
    let student = [vec![0.3, -1.2, 2.0, 0.1], vec![-40.0, 30.0, 2.0, 0.0], vec![0.0; 4]];
    let teacher = [vec![1.0, 0.2, -0.4, 0.7], vec![35.0, -60.0, 1.0, 2.0], vec![0.0; 4]];
    for desk in &mut desks() {
        let mut of = |a: &[Vec<f64>], b: &[Vec<f64>], weight: f64| desk.divergence([a, b], (weight, 1.0), &[1.0; 3]);
        let (forward, reverse) = (of(&student, &teacher, 0.0), of(&student, &teacher, 1.0));
        assert_eq!(forward.0, of(&teacher, &student, 1.0).0, "the ends mirror each other");
        let (half, other) = (of(&student, &teacher, 0.5), of(&teacher, &student, 0.5));
        let (low, high) = (of(&student, &teacher, 1e-3), of(&student, &teacher, 1.0 - 1e-3));
        for n in 0..3 {
            assert!((half.0[n] - other.0[n]).abs() < 1e-6, "{} and {}", half.0[n], other.0[n]);
            assert!((0.0..=std::f64::consts::LN_2 + 1e-6).contains(&half.0[n]), "{}", half.0[n]);
        }
        assert!((half.0[1] - std::f64::consts::LN_2).abs() < 1e-6, "disjoint: {}", half.0[1]);
        // The first row has no tiny probability, so the ends are near.
        assert!((low.0[0] / 1e-3 / forward.0[0] - 1.0).abs() < 0.02, "{} and {}", low.0[0], forward.0[0]);
        assert!((high.0[0] / 1e-3 / reverse.0[0] - 1.0).abs() < 0.02, "{} and {}", high.0[0], reverse.0[0]);
        for (kl, dx) in [forward, reverse, half, low, high] {
            assert!(kl.iter().chain(&dx).all(|x| x.is_finite()), "{kl:?} {dx:?}");
            assert!(kl[2] < 1e-6 && dx[8..].iter().all(|d| d.abs() < 1e-6), "{kl:?} {dx:?}");
        }
    }
}

/// Catches a model that has diverged and seems to be equal to its teacher: a comparison with NaN is false.
#[test]
fn a_divergence_of_nan_is_nan() {
    let (good, lost) = (vec![0.5, -1.0, 2.0], vec![0.5, f64::NAN, 2.0]);
    for mut desk in desks() {
        for weight in [0.0, 0.3, 1.0] {
            for models in [[&lost, &good], [&good, &lost]] {
                let [student, teacher] = models.map(|logits| [logits.clone(), good.clone()]);
                let (found, _) = desk.divergence([&student, &teacher], (weight, 1.0), &[1.0, 1.0]);
                assert!(found[0].is_nan() && found[1].abs() < 1e-6, "{weight}: {found:?}");
            }
        }
    }
}
