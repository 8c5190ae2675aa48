//! Twenty AdamW steps of transformers' models compared with torch's own optimizer, on every backend.

use plugin_api::backend::ops::{AdamW, FLAT_ALIGN, GlobalNorm};
use serde_json::Value;
use telos::device::{Device, Tensor};
use telos::model::{Model, Recompute};

use crate::support::{Packed, backends, close, cross_entropy, device, float, floats, ints, l2, oracles, trajectories};

/// Segments of the flat buffer, one per parameter, with their rates.
fn segments(model: &Model, lr: f64, decay: f64) -> (Tensor, Tensor) {
    let layout = model.layout();
    let starts = layout.parameters().iter().map(|p| p.offset).chain([layout.flat_len()]);
    let bounds: Vec<i32> = starts.map(|offset| (offset / FLAT_ALIGN) as i32).collect();
    let rate = |matrix: bool| [lr, if matrix { decay } else { 0.0 }];
    let hyper: Vec<f64> = layout.parameters().iter().flat_map(|p| rate(p.matrix)).collect();
    let device = model.device();
    let table = device.tensor_of(device.accumulator(), layout.parameters().len() as u64, 2).unwrap();
    table.buffer().upload(0, &hyper).unwrap();
    (device.ints(&bounds).unwrap(), table)
}

/// Catches decay on vectors, a missing bias correction, clipping by the wrong norm, moments mixed up.
#[test]
fn twenty_adamw_steps_follow_torch() {
    for (name, expected) in trajectories("ce") {
        let sequences: Vec<Vec<i32>> = expected["data"]["input_ids"].as_array().unwrap().iter().map(ints).collect();
        let batch = Packed::new(&sequences);
        for backend in backends() {
            follow(&device(backend), &expected, &batch, &format!("{name} on {backend}"));
        }
    }
}

fn follow(device: &Device, expected: &Value, batch: &Packed, what: &str) {
    let hyper = &expected["hyper"];
    let betas = floats(&hyper["betas"]);
    let folder = oracles().join(expected["model"].as_str().unwrap());
    let model = Model::from_folder(device, &folder).unwrap();
    let [grads, m, v] = [(); 3].map(|()| model.flat_buffer().unwrap());
    let norm = device.tensor_of(device.accumulator(), 1, 2).unwrap();
    for (step, line) in expected["log"].as_array().unwrap().iter().enumerate() {
        model.zero(&grads).unwrap();
        let loss = cross_entropy(&model, batch, Recompute::Auto, true, &grads);
        device.call(&GlobalNorm { x: grads.view(), norm: norm.view() }).unwrap();
        close(&format!("{what}: loss of step {step}"), loss, float(&line["loss"]), 1e-5);
        let grad_norm = norm.to_vec().unwrap()[0];
        close(&format!("{what}: grad_norm of step {step}"), grad_norm, float(&line["grad_norm"]), 1e-4);
        let (bounds, rates) = segments(&model, float(&line["lr"]), float(&hyper["weight_decay"]));
        device
            .call(&AdamW {
                grads: grads.view(),
                norm: norm.view(),
                bounds: bounds.view(),
                hyper: rates.view(),
                shadow: None,
                params: model.params().view(),
                m: m.view(),
                v: v.view(),
                beta1: betas[0],
                beta2: betas[1],
                eps: float(&hyper["eps"]),
                clip: float(&hyper["clip_norm"]),
                step: step as i64 + 1,
            })
            .unwrap();
    }
    ends_at(&model, expected, what, 1e-5);
}

/// Fails unless every parameter ends at the trajectory's values, within `tolerance` of its sum of absolute values.
pub fn ends_at(model: &Model, expected: &Value, what: &str, tolerance: f64) {
    for (name, wanted) in expected["final"].as_object().unwrap() {
        // Zero in exact arithmetic, so that Adam's steps there come from rounding noise.
        if name.ends_with("[k]") {
            continue;
        }
        let values = final_values(model, name);
        let abs_sum = values.iter().map(|v| v.abs()).sum::<f64>();
        close(&format!("{what}: abs_sum of {name}"), abs_sum, float(&wanted["abs_sum"]), tolerance);
        close(&format!("{what}: l2 of {name}"), l2(&values), float(&wanted["l2"]), tolerance);
        let error = (values.iter().sum::<f64>() - float(&wanted["sum"])).abs();
        assert!(error < tolerance * abs_sum, "{what}: sum of {name} is off by {error}");
    }
}

/// The values of a parameter, or of the query, key or value part of one named `name[q]`.
fn final_values(model: &Model, name: &str) -> Vec<f64> {
    let (name, part) = name.split_once('[').unwrap_or((name, ""));
    let values = model.values(model.params(), model.layout().get(name).unwrap()).unwrap();
    let third = values.len() / 3;
    match part {
        "q]" => values[..third].to_vec(),
        "v]" => values[2 * third..].to_vec(),
        _ => values,
    }
}

/// Catches decay on norms or biases, or none on embeddings.
#[test]
fn the_default_decay_is_on_the_tensors_that_torch_decayed() {
    for (name, expected) in trajectories("ce") {
        let folder = oracles().join(expected["model"].as_str().unwrap());
        let model = Model::from_folder(&device("reference"), &folder).unwrap();
        let mut ours: Vec<&str> =
            model.layout().parameters().iter().filter(|p| p.matrix).map(|p| p.name.as_str()).collect();
        let decayed = expected["hyper"]["decayed"].as_array().unwrap();
        let mut wanted: Vec<&str> = decayed.iter().map(|name| name.as_str().unwrap()).collect();
        ours.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(ours, wanted, "{name}");
    }
}
