//! Divergences, candidates and the most probable ids of whole models: compared with full logits and finite differences, and the
//! memory that they take.

use plugin_api::abi::DType;
use plugin_api::backend::Session;
use plugin_api::manifest::Divergence;
use telos::device::{Buffer, Device, sizes::SizesOnly};
use telos::generate::{GenerateOptions, generate};
use telos::model::{
    CandidateCotangents, CandidateRequest, Cotangents, DivergenceRequest, Keep, Model, ModelConfig, Recompute,
    TopIdsRequest,
};

use crate::support::{Packed, device, perturb, session, tiny};

const BACKENDS: [&str; 3] = ["reference", "candle kernels", "candle generic"];

fn models(backend: &str) -> (Model, Model) {
    let device = device(backend);
    let ours = Model::init(&device, tiny("llama", false), 5).unwrap();
    // Another family and another width.
    let mut config = tiny("gpt2", true);
    (config.dim, config.head_dim) = (12, 6);
    let theirs = Model::init(&device, config, 6).unwrap();
    perturb(&ours);
    perturb(&theirs);
    (ours, theirs)
}

fn batch() -> Packed {
    Packed::new(&[vec![3, 1, 4, 1, 5], vec![9, 2, 6, 5]])
}

/// What the other model reads: the same answers after longer prompts.
fn longer() -> Packed {
    Packed::new(&[vec![7, 7, 3, 1, 4, 1, 5], vec![8, 9, 2, 6, 5]])
}

/// The rows of the answers in both batches.
const ROWS: [i32; 5] = [1, 2, 3, 5, 7];
const OTHER_ROWS: [i32; 5] = [3, 4, 5, 8, 10];
const IDS: [i32; 10] = [0, 5, 10, 2, 3, 4, 9, 1, 6, 7];

fn request(weight: f64) -> DivergenceRequest<'static> {
    let divergence = Divergence { weight, temperature: 1.3 };
    DivergenceRequest { rows: Some(&ROWS), other_rows: Some(&OTHER_ROWS), divergence }
}

fn candidates() -> CandidateRequest<'static> {
    CandidateRequest { rows: Some(&ROWS), ids: &IDS, count: 2, temperature: 1.3, tail: true }
}

/// Log-probabilities of all ids at each of `rows`.
fn all_logps(model: &Model, batch: &Packed, rows: &[i32], temperature: f64) -> Vec<Vec<f64>> {
    let forward = model.forward(batch.view(), Keep::Nothing).unwrap();
    let logits = model.logits(forward.hidden()).unwrap().to_vec().unwrap();
    let of = |row: &i32| {
        let z: Vec<f64> = logits[*row as usize * 11..][..11].iter().map(|z| z / temperature).collect();
        let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
        z.iter().map(|z| z - lse).collect()
    };
    rows.iter().map(of).collect()
}

/// Catches rows of one model gathered by the other's list, the models exchanged, ids of another row, a tail of the candidates,
/// and a wrong order of the most probable ids.
#[test]
fn divergences_and_candidates_equal_those_of_full_logits() {
    for backend in BACKENDS {
        let (ours, theirs) = models(backend);
        let tolerance = if backend == "reference" { 1e-12 } else { 2e-6 };
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < tolerance, "{backend}: {found}, expected {expected}");
        };
        let (packed, other) = (batch(), longer());
        let forward = ours.forward(packed.view(), Keep::Nothing).unwrap();
        let hidden = theirs.forward(other.view(), Keep::Nothing).unwrap();
        let (p, q) = (all_logps(&ours, &packed, &ROWS, 1.3), all_logps(&theirs, &other, &OTHER_ROWS, 1.3));
        for weight in [0.0, 0.3, 1.0] {
            let found = ours.divergence(forward.hidden(), &theirs, hidden.hidden(), &request(weight)).unwrap().kl;
            assert_eq!(found.len(), 5);
            for (n, kl) in found.iter().enumerate() {
                let of = |a: &[f64], b: &dyn Fn(usize) -> f64| (0..11).map(|v| a[v].exp() * (a[v] - b(v))).sum::<f64>();
                let m = |v: usize| (weight * q[n][v].exp() + (1.0 - weight) * p[n][v].exp()).ln();
                near(
                    *kl,
                    match weight {
                        0.0 => of(&q[n], &|v| p[n][v]),
                        1.0 => of(&p[n], &|v| q[n][v]),
                        w => w * of(&q[n], &m) + (1.0 - w) * of(&p[n], &m),
                    },
                );
            }
        }
        let found = ours.candidates(forward.hidden(), &candidates()).unwrap();
        let tail = found.tail.as_ref().unwrap();
        for (n, ids) in IDS.chunks(2).enumerate() {
            near(found.logps[2 * n], p[n][ids[0] as usize]);
            near(found.logps[2 * n + 1], p[n][ids[1] as usize]);
            let rest = (0..11).filter(|v| !ids.contains(v)).map(|v| p[n][v as usize].exp()).sum::<f64>();
            near(tail[n], rest.ln());
        }
        let top = TopIdsRequest { rows: Some(&ROWS), count: 4, temperature: 1.3, tail: true };
        let top = ours.top_ids(forward.hidden(), &top).unwrap();
        for (n, ids) in top.ids.chunks(4).enumerate() {
            let mut ranked: Vec<i32> = (0..11).collect();
            ranked.sort_by(|a, b| p[n][*b as usize].total_cmp(&p[n][*a as usize]));
            assert_eq!(ids, &ranked[..4], "{backend}");
            near(top.logps[4 * n + 1], p[n][ids[1] as usize]);
            near(top.tail.as_ref().unwrap()[n], ranked[4..].iter().map(|v| p[n][*v as usize].exp()).sum::<f64>().ln());
        }
    }
}

fn weights(number: usize, count: usize) -> Vec<f64> {
    (0..count).map(|i| 0.2 + ((3 * i + 5 * number) as f64).cos()).collect()
}

/// A weighted sum of log-probabilities, divergences, candidates and tails.
fn objective(ours: &Model, theirs: &Model, weight: f64) -> f64 {
    let (packed, other) = (batch(), longer());
    let forward = ours.forward(packed.view(), Keep::Nothing).unwrap();
    let hidden = theirs.forward(other.view(), Keep::Nothing).unwrap();
    let logps = ours.head_stats(&forward, &packed.request()).unwrap().stats.logp;
    let kl = ours.divergence(forward.hidden(), theirs, hidden.hidden(), &request(weight)).unwrap().kl;
    let found = ours.candidates(forward.hidden(), &candidates()).unwrap();
    let columns = [logps, kl, found.logps, found.tail.unwrap()];
    let sum = |(i, values): (usize, &Vec<f64>)| -> f64 {
        values.iter().zip(weights(i, values.len())).map(|(v, w)| v * w).sum()
    };
    columns.iter().enumerate().map(sum).sum()
}

fn gradient(ours: &Model, theirs: &Model, weight: f64) -> Buffer {
    let (packed, other) = (batch(), longer());
    let grads = ours.flat_buffer().unwrap();
    let forward = ours.forward(packed.view(), Keep::ForBackward(Recompute::Auto)).unwrap();
    let hidden = theirs.forward(other.view(), Keep::Nothing).unwrap();
    let stats = ours.head_stats(&forward, &packed.request()).unwrap();
    let divergences = ours.divergence(forward.hidden(), theirs, hidden.hidden(), &request(weight)).unwrap();
    let found = ours.candidates(forward.hidden(), &candidates()).unwrap();
    let w = [packed.supervised.len(), 5, 10, 5];
    let w: Vec<Vec<f64>> = w.into_iter().enumerate().map(|(i, count)| weights(i, count)).collect();
    let cotangents = Cotangents { logp: Some(&w[0]), ..Cotangents::default() };
    let sum = ours.head_backward(stats, &cotangents, &grads).unwrap();
    let sum = ours.divergence_backward(divergences, theirs, &w[1], Some(sum), &grads).unwrap();
    let cotangents = CandidateCotangents { logps: Some(&w[2]), tail: Some(&w[3]) };
    let sum = ours.candidates_backward(found, &cotangents, Some(sum), &grads).unwrap();
    ours.backward(forward, sum, &grads).unwrap();
    grads
}

/// Catches a cotangent of the hidden states that replaces those of the other heads, one scattered to the other model's rows, and a
/// gradient of the head's weight that is overwritten.
#[test]
fn gotcha_38_the_sum_of_all_heads_agrees_with_finite_differences() {
    let (ours, theirs) = models("reference");
    let h = 1e-5;
    for weight in [0.0, 0.3] {
        let grads = gradient(&ours, &theirs, weight);
        for parameter in ours.layout().parameters() {
            let values = ours.values(ours.params(), parameter).unwrap();
            let found = ours.values(&grads, parameter).unwrap();
            // Every third element: each tensor has enough of them.
            for (i, value) in values.iter().enumerate().step_by(3) {
                let offset = parameter.offset + i as u64;
                let at = |x: f64| {
                    ours.params().upload(offset, &[x]).unwrap();
                    objective(&ours, &theirs, weight)
                };
                let expected = (at(value + h) - at(value - h)) / (2.0 * h);
                ours.params().upload(offset, &[*value]).unwrap();
                let error = (found[i] - expected).abs() / expected.abs().max(1.0);
                assert!(error < 1e-6, "weight {weight} {}[{i}]: {}, expected {expected}", parameter.name, found[i]);
            }
        }
    }
}

/// Catches a cotangent that needs another head's: each backward pass starts from zeros if no sum is given.
#[test]
fn each_head_gives_its_cotangent_alone() {
    let (ours, theirs) = models("candle kernels");
    let (packed, other) = (batch(), longer());
    let forward = ours.forward(packed.view(), Keep::Nothing).unwrap();
    let hidden = theirs.forward(other.view(), Keep::Nothing).unwrap();
    let grads = ours.flat_buffer().unwrap();
    let kl = || ours.divergence(forward.hidden(), &theirs, hidden.hidden(), &request(1.0)).unwrap();
    let alone = ours.divergence_backward(kl(), &theirs, &[1.0; 5], None, &grads).unwrap().to_vec().unwrap();
    assert!(alone[..8].iter().all(|x| *x == 0.0) && alone[8..16].iter().any(|x| *x != 0.0), "row 0 has none");
    let given = ours.no_cotangent(&forward).unwrap();
    let added = ours.divergence_backward(kl(), &theirs, &[1.0; 5], Some(given), &grads).unwrap().to_vec().unwrap();
    assert_eq!(alone, added);
    let wrong = ours.divergence_backward(kl(), &theirs, &[1.0; 4], None, &grads).err().unwrap();
    assert!(wrong.message().contains("4 cotangents for 5"), "{wrong:?}");
    let uneven = DivergenceRequest { other_rows: Some(&[0, 1]), ..request(0.0) };
    let wrong = ours.divergence(forward.hidden(), &theirs, hidden.hidden(), &uneven).err().unwrap();
    assert!(wrong.message().contains("5 rows of one model and 2 of the other"), "{wrong:?}");
    let twice = CandidateRequest { ids: &[1, 1, 2, 3, 4, 5, 6, 7, 8, 9], ..candidates() };
    let wrong = ours.candidates(forward.hidden(), &twice).err().unwrap();
    assert!(wrong.message().contains("row 0"), "{wrong:?}");
}

/// Peak bytes that the heads of `tokens` tokens add to what is held, at a vocabulary of 49,152.
fn peak(tokens: u64) -> u64 {
    let (session, compute): (Box<dyn Session>, DType) = session("candle kernels", 1);
    let real = Device::new(session, compute).unwrap();
    let (device, counted) = SizesOnly::device(&real).unwrap();
    let config = ModelConfig { vocab: 49_152, ..tiny("llama", false) };
    let (ours, theirs) = (Model::init(&device, config.clone(), 1).unwrap(), Model::init(&device, config, 2).unwrap());
    let grads = ours.flat_buffer().unwrap();
    let hidden = device.tensor(tokens, 8).unwrap();
    let held = counted.most();
    let rows: Vec<i32> = (0..tokens as i32).collect();
    let divergence = DivergenceRequest { rows: Some(&rows), other_rows: Some(&rows), ..request(0.5) };
    let divergences = ours.divergence(&hidden, &theirs, &hidden, &divergence).unwrap();
    let cotangents = vec![1.0; tokens as usize];
    let sum = ours.divergence_backward(divergences, &theirs, &cotangents, None, &grads).unwrap();
    let top = TopIdsRequest { rows: Some(&rows), count: 16, temperature: 1.0, tail: true };
    let ids = ours.top_ids(&hidden, &top).unwrap().ids;
    let request = CandidateRequest { rows: Some(&rows), ids: &ids, count: 16, temperature: 1.0, tail: true };
    let candidates = ours.candidates(&hidden, &request).unwrap();
    let cotangents = CandidateCotangents { logps: None, tail: Some(&cotangents) };
    ours.candidates_backward(candidates, &cotangents, Some(sum), &grads).unwrap();
    counted.most() - held
}

/// Catches a buffer of `[N, V]` (of one id in a thousand already): what the heads allocate per token is a few hundred bytes,
/// whatever the vocabulary.
#[test]
fn heads_allocate_nothing_of_the_size_of_the_logits() {
    let (few, many) = (peak(1000), peak(4000));
    let per_token = (many - few) / 3000;
    assert!(per_token < 49_152 * 4 / 100, "{per_token} bytes per token");
    assert!(many < 4000 * 49_152 * 4 / 100, "{many} bytes");
}

/// Catches log-probabilities that are not renormalised, an entropy of the whole softmax, and one of a greedy draw.
#[test]
fn generation_reports_the_distribution_that_it_drew_from() {
    for backend in BACKENDS {
        let (model, _) = models(backend);
        let run = |temperature: f64, top_k: usize, top_p: f64| {
            let options = GenerateOptions { max_tokens: 5, temperature, top_p, top_k, seed: 3 };
            generate(&model, &[vec![3, 1], vec![4], vec![9, 2, 6]], &options, &mut |_| {}).unwrap()
        };
        for done in run(1.0, 0, 1.0) {
            assert_eq!(done.logps, done.kept_logps, "{backend}");
            assert!(done.kept_entropies.iter().all(|h| *h > 0.0 && *h <= 11_f64.ln() + 1e-6));
        }
        for done in run(0.8, 2, 1.0) {
            assert!([done.logps.len(), done.kept_entropies.len()] == [done.kept_logps.len(); 2]);
            for ((logp, kept), entropy) in done.logps.iter().zip(&done.kept_logps).zip(&done.kept_entropies) {
                assert!(kept > logp && *kept <= 0.0, "{backend}: {kept} {logp}");
                // Of two tokens, one of which has this share.
                let share = kept.exp();
                let expected = -share * kept - (1.0 - share) * (1.0 - share).ln();
                assert!((entropy - expected).abs() < 1e-5, "{backend}: {entropy}, expected {expected}");
            }
        }
        for done in run(0.0, 2, 0.5) {
            assert!(done.kept_logps.iter().chain(&done.kept_entropies).all(|x| *x == 0.0), "{backend}");
        }
    }
}
