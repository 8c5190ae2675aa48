//! Gradients of whole models compared with finite differences in f64, and the cost of frozen parameters.

use plugin_api::abi::DType;
use telos::device::profile::Profile;
use telos::device::{Buffer, Device};
use telos::families::NAMES;
use telos::model::{Cotangents, HeadRequest, Keep, Model, ModelConfig, Outputs, Recompute, Statistics};

use crate::support::{Packed, RECOMPUTES, device, perturb, session, tiny};

const ALL: Statistics = Statistics { lse: true, entropy: true, mean_logit: true, top1: false };

fn batch() -> Packed {
    Packed::new(&[vec![3, 1, 4, 1, 5], vec![9, 2], vec![6, 5, 10, 0, 8, 7, 3, 2]])
}

/// Weights that differ by statistic and token, so that an exchanged or shifted cotangent is detected.
fn weights(statistic: usize, tokens: usize) -> Vec<f64> {
    (0..tokens).map(|i| 0.2 + ((3 * i + 5 * statistic) as f64).cos()).collect()
}

/// A weighted sum of all statistics.
fn objective(model: &Model, batch: &Packed, temperature: f64) -> f64 {
    let forward = model.forward(batch.view(), Keep::Nothing).unwrap();
    let request = HeadRequest { temperature, statistics: ALL, ..batch.request() };
    let stats = model.head_stats(&forward, &request).unwrap().stats;
    let columns = [Some(stats.logp), stats.lse, stats.mean_logit, stats.entropy];
    let terms = columns.into_iter().enumerate().map(|(i, values)| {
        let values = values.unwrap();
        values.iter().zip(weights(i, values.len())).map(|(v, w)| v * w).sum::<f64>()
    });
    terms.sum()
}

fn gradient(model: &Model, batch: &Packed, temperature: f64) -> Buffer {
    let grads = model.flat_buffer().unwrap();
    let forward = model.forward(batch.view(), Keep::ForBackward(Recompute::Auto)).unwrap();
    let request = HeadRequest { temperature, statistics: ALL, ..batch.request() };
    let head = model.head_stats(&forward, &request).unwrap();
    let w: Vec<Vec<f64>> = (0..4).map(|i| weights(i, batch.supervised.len())).collect();
    let cotangents = Cotangents { logp: Some(&w[0]), lse: Some(&w[1]), mean_logit: Some(&w[2]), entropy: Some(&w[3]) };
    let dhidden = model.head_backward(head, &cotangents, &grads).unwrap();
    model.backward(forward, dhidden, &grads).unwrap();
    grads
}

/// Catches any wrong term of any backward, in every element of every tensor: every family, with and without biases, tied and untied,
/// grouped heads, windows, at a temperature.
#[test]
fn gotcha_38_every_gradient_agrees_with_finite_differences() {
    let (batch, temperature, h) = (batch(), 1.3, 1e-5);
    for (family, other) in NAMES.iter().flat_map(|family| [(family, false), (family, true)]) {
        let model = Model::init(&device("reference"), tiny(family, other), 5).unwrap();
        perturb(&model);
        let grads = gradient(&model, &batch, temperature);
        for parameter in model.layout().parameters() {
            let values = model.values(model.params(), parameter).unwrap();
            let found = model.values(&grads, parameter).unwrap();
            for (i, value) in values.iter().enumerate() {
                let offset = parameter.offset + i as u64;
                let at = |x: f64| {
                    model.params().upload(offset, &[x]).unwrap();
                    objective(&model, &batch, temperature)
                };
                let expected = (at(value + h) - at(value - h)) / (2.0 * h);
                model.params().upload(offset, &[*value]).unwrap();
                let error = (found[i] - expected).abs() / expected.abs().max(1.0);
                let name = &parameter.name;
                assert!(error < 1e-6, "{family} {name}[{i}]: {}, expected {expected}", found[i]);
            }
        }
    }
}

/// Catches a scalar head whose weight or input gets no gradient or another's, one that overwrites the gradient of the
/// language-model head, and a trunk that gets only part of its gradient. A head that starts at 0 gives its trunk no gradient; this
/// one does not.
#[test]
fn gotcha_38_the_scalar_head_agrees_with_finite_differences() {
    let (batch, h) = (batch(), 1e-5);
    let alone = NAMES.iter().map(|family| (*family, Outputs::SCALAR));
    for (family, outputs) in alone.chain([("llama", Outputs::BOTH), ("gpt2", Outputs::BOTH)]) {
        let config = ModelConfig { outputs, ..tiny(family, false) };
        let model = Model::init(&device("reference"), config, 5).unwrap();
        assert!(model.layout().get("score.weight").is_some());
        let has_head = ["lm_head.weight", "embed_out.weight"].iter().any(|name| model.layout().get(name).is_some());
        assert_eq!(has_head, family == "llama" && outputs.tokens);
        perturb(&model);
        let w = [weights(0, batch.supervised.len()), weights(1, batch.tokens.len())];
        let loss = || {
            let forward = model.forward(batch.view(), Keep::Nothing).unwrap();
            let scalars = model.scalars(&forward).unwrap();
            let logp = outputs.tokens.then(|| model.head_stats(&forward, &batch.request()).unwrap().stats.logp);
            let sum = |values: &[f64], w: &[f64]| values.iter().zip(w).map(|(v, w)| v * w).sum::<f64>();
            sum(&scalars, &w[1]) + logp.map_or(0.0, |logp| sum(&logp, &w[0]))
        };
        let [grads, others @ ..] = RECOMPUTES.map(|recompute| {
            let grads = model.flat_buffer().unwrap();
            let forward = model.forward(batch.view(), Keep::ForBackward(recompute)).unwrap();
            let dhidden = outputs.tokens.then(|| {
                let head = model.head_stats(&forward, &batch.request()).unwrap();
                model.head_backward(head, &Cotangents { logp: Some(&w[0]), ..Cotangents::default() }, &grads).unwrap()
            });
            let dhidden = model.scalars_backward(&forward, &w[1], dhidden, &grads).unwrap();
            model.backward(forward, dhidden, &grads).unwrap();
            grads
        });
        let bits = |grads: &Buffer| grads.download(0, grads.len()).unwrap();
        assert!(others.iter().all(|other| bits(other) == bits(&grads)), "{family} {outputs:?}");
        for parameter in model.layout().parameters() {
            let values = model.values(model.params(), parameter).unwrap();
            let found = model.values(&grads, parameter).unwrap();
            for (i, value) in values.iter().enumerate() {
                let at = |x: f64| {
                    model.params().upload(parameter.offset + i as u64, &[x]).unwrap();
                    loss()
                };
                let expected = (at(value + h) - at(value - h)) / (2.0 * h);
                at(*value);
                let error = (found[i] - expected).abs() / expected.abs().max(1.0);
                let name = &parameter.name;
                assert!(error < 1e-6, "{family} {outputs:?} {name}[{i}]: {}, expected {expected}", found[i]);
            }
        }
    }
}

/// Catches a gradient written for a frozen tensor, one lost for its neighbour in a fused product, and work done below the lowest
/// trained layer.
#[test]
fn gotcha_38_frozen_parameters_get_no_gradient_and_cost_nothing() {
    let batch = batch();
    type Learns = fn(&str) -> bool;
    let cases: [(&str, Learns); 8] = [
        ("k alone", |name| name.contains("k_proj.weight")),
        ("biases alone", |name| name.ends_with(".bias")),
        ("all but v", |name| !name.contains("v_proj")),
        ("upper layer", |name| name.contains("layers.1.")),
        ("mlp", |name| name.contains("mlp.")),
        ("last norm", |name| name == "model.norm.weight"),
        ("embedding", |name| name.contains("embed_tokens")),
        ("nothing", |_| false),
    ];
    // Without biases query and key weights are one block; with them every layer is separate.
    for biases in [false, true] {
        let (profiled, record) = Profile::wrap(session("reference", 1).0);
        let device = Device::new(profiled, DType::F64).unwrap();
        let mut model = Model::init(&device, tiny("llama", biases), 5).unwrap();
        perturb(&model);
        let full = gradient(&model, &batch, 1.0);
        for (what, learns) in cases.into_iter().filter(|(what, _)| biases || *what != "biases alone") {
            model.set_trainable(|parameter| learns(&parameter.name));
            record.clear();
            let grads = gradient(&model, &batch, 1.0);
            only(&model, &full, &grads, learns, what);
            let count = |op: &str| record.costs().get(op).map_or(0, |cost| cost.calls);
            let attention = match what {
                "upper layer" => 1,
                "last norm" | "nothing" => 0,
                _ => 2,
            };
            assert_eq!(count("attention_backward"), attention, "{what}");
            let weights = match what {
                "embedding" | "last norm" | "nothing" => 0,
                "k alone" => 2,
                _ => continue,
            };
            assert_eq!(count("linear_backward_weight"), weights, "{what}");
        }
    }
}

/// Fails unless trained parameters have the gradient of `full`, and the others none.
fn only(model: &Model, full: &Buffer, grads: &Buffer, learns: fn(&str) -> bool, what: &str) {
    for parameter in model.layout().parameters() {
        let found = model.values(grads, parameter).unwrap();
        let expected = match learns(&parameter.name) {
            true => model.values(full, parameter).unwrap(),
            false => vec![0.0; found.len()],
        };
        assert_eq!(found, expected, "{what}: {}", parameter.name);
    }
}
