//! Low-rank adapters: compared with PEFT's numbers, finite differences, their own merge and the frozen weights.

use std::path::PathBuf;

use serde_json::Value;
use telos::device::Buffer;
use telos::families::NAMES;
use telos::generate::{GenerateOptions, generate};
use telos::model::adapter::{ALL_LINEAR, Settings};
use telos::model::{Keep, Model, Outputs, Recompute};
use telos::optimizer::{self, OptimizerKind, Settings as OptimizerSettings};

use crate::support::{
    Packed, RECOMPUTES, backends, close, cross_entropy, device, float, floats, gradient, ints, json, l2, oracles, tiny,
};

/// The reference adapters, each with its name, its folder and PEFT's numbers.
fn adapters() -> Vec<(String, PathBuf, Value)> {
    let folder = oracles().join("lora");
    let listed = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut all: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    all.retain(|name| folder.join(name).is_dir());
    all.sort();
    assert!(!all.is_empty(), "{} holds no adapter", folder.display());
    all.into_iter()
        .map(|name| (name.clone(), folder.join(&name), json(&folder.join(&name).join("expected.json"))))
        .collect()
}

fn sequences(expected: &Value) -> Vec<Vec<i32>> {
    expected["sequences"].as_array().unwrap().iter().map(ints).collect()
}

fn settings(targets: &[&str]) -> Settings {
    Settings { rank: 3, alpha: 7.5, targets: targets.iter().map(|name| (*name).to_owned()).collect(), rslora: false }
}

/// The logits of every token.
fn logits(model: &Model, batch: &Packed) -> Vec<f64> {
    let forward = model.forward(batch.view(), Keep::Nothing).unwrap();
    model.logits(forward.hidden()).unwrap().to_vec().unwrap()
}

fn batch() -> Packed {
    Packed::new(&[vec![3, 1, 4, 1, 5], vec![9, 2], vec![6, 5, 10, 0, 8, 7, 3, 2]])
}

/// Gives every factor values that are not zero.
fn perturb(model: &Model) {
    let learned = model.learned();
    for (index, parameter) in learned.table.parameters().iter().enumerate() {
        let values: Vec<f64> = (0..parameter.len()).map(|i| 0.2 * ((i * 7 + index as u64 * 13) as f64).sin()).collect();
        learned.params.upload(parameter.offset, &values).unwrap();
    }
    model.refresh_shadow().unwrap();
}

/// A tiny model with an adapter for `targets`, all of whose factors differ from zero.
fn adapted(backend: &str, family: &str, targets: &[&str], outputs: Outputs) -> Model {
    let base = Model::init(&device(backend), tiny(family, false), 5).unwrap();
    crate::support::perturb(&base);
    let model = base.adapted(outputs, settings(targets), 9).unwrap();
    perturb(&model);
    model
}

/// Catches a scale of alpha / r for rsLoRA, factors that are exchanged or transposed, rows of another map of the same product, and an
/// adapter in another layer than its own.
#[test]
fn adapters_compute_what_peft_computes() {
    for (name, folder, expected) in adapters() {
        let batch = Packed::new(&sequences(&expected));
        let wanted: Vec<f64> = expected["logits"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|s| s.as_array().unwrap().iter().flat_map(floats))
            .collect();
        for backend in backends() {
            let model = Model::from_folder(&device(backend), &folder).unwrap();
            let found = logits(&model, &batch);
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(&wanted) {
                assert!((found - wanted).abs() < 1e-4, "{name} on {backend}: {found}, expected {wanted}");
            }
            for (recompute, fused) in RECOMPUTES.into_iter().flat_map(|r| [(r, false), (r, true)]) {
                let (loss, grads) = gradient(&model, &batch, recompute, fused);
                let what = format!("{name} on {backend}, {recompute:?}, fused {fused}");
                close(&format!("{what}: loss"), loss, float(&expected["loss"]), 1e-5);
                let gradients = expected["gradients"].as_object().unwrap();
                let table = model.learned().table;
                assert_eq!(gradients.len(), table.parameters().len(), "{what}");
                assert_eq!(grads.len(), table.flat_len(), "{what}");
                for (name, wanted) in gradients {
                    let values = model.values(&grads, table.get(name).unwrap_or_else(|| panic!("no {name}"))).unwrap();
                    close(&format!("{what}: l2 of {name}"), l2(&values), float(&wanted["l2"]), 1e-4);
                    let (sum, size) = (values.iter().sum::<f64>(), values.iter().map(|v| v.abs()).sum::<f64>());
                    assert!((sum - float(&wanted["sum"])).abs() < 1e-4 * size, "{what}: sum of {name} is {sum}");
                }
            }
        }
    }
}

/// Catches factors without decay or with another rate, and moments of the wrong factor.
#[test]
fn adamw_steps_of_an_adapter_follow_torch() {
    for (name, folder, expected) in adapters() {
        let (batch, hyper) = (Packed::new(&sequences(&expected)), &expected["hyper"]);
        let betas = floats(&hyper["betas"]);
        let settings = OptimizerSettings {
            kind: OptimizerKind::Adamw,
            lr: float(&hyper["lr"]),
            betas: [betas[0], betas[1]],
            eps: float(&hyper["eps"]),
            weight_decay: float(&hyper["weight_decay"]),
            clip: float(&hyper["clip"]),
            groups: Vec::new(),
        };
        for backend in backends() {
            let device = device(backend);
            let model = Model::from_folder(&device, &folder).unwrap();
            let before = model.params().download(0, model.params().len()).unwrap();
            let mut optimizer = optimizer::create(&device, model.learned().table, &settings).unwrap();
            let grads = model.flat_buffer().unwrap();
            for (step, line) in expected["log"].as_array().unwrap().iter().enumerate() {
                model.zero(&grads).unwrap();
                let loss = cross_entropy(&model, &batch, Recompute::Auto, true, &grads);
                close(&format!("{name} on {backend}: loss of step {step}"), loss, float(&line["loss"]), 1e-5);
                let norm = optimizer.measure(&grads).unwrap().norm;
                close(&format!("{name} on {backend}: norm of step {step}"), norm, float(&line["grad_norm"]), 1e-4);
                let learned = model.learned();
                optimizer.update(learned.params, learned.shadow, &grads, settings.lr).unwrap();
            }
            for (factor, wanted) in expected["final"].as_object().unwrap() {
                let learned = model.learned();
                let values = model.values(learned.params, learned.table.get(factor).unwrap()).unwrap();
                close(&format!("{name} on {backend}: {factor}"), l2(&values), float(&wanted["l2"]), 1e-4);
            }
            assert!(before == model.params().download(0, model.params().len()).unwrap(), "frozen weights moved");
            for (_, moments) in optimizer.moments() {
                assert_eq!(moments.len(), model.learned().table.flat_len());
            }
        }
    }
}

/// Catches an adapter whose second factor does not start at zero, and a path of the frozen weights that it changes.
#[test]
fn a_fresh_adapter_gives_the_bits_of_its_base() {
    for family in NAMES {
        for backend in backends() {
            let base = Model::init(&device(backend), tiny(family, false), 5).unwrap();
            crate::support::perturb(&base);
            let model = base.adapted(Outputs::TOKENS, settings(&[ALL_LINEAR]), 3).unwrap();
            assert!(logits(&model, &batch()) == logits(&base, &batch()), "{family} on {backend}");
            let options = GenerateOptions { max_tokens: 5, temperature: 0.0, ..GenerateOptions::default() };
            let answer = |model| generate(model, &[vec![3, 1]], &options, &mut |_| {}).unwrap()[0].tokens.clone();
            assert_eq!(answer(&model), answer(&base), "{family} on {backend}");
            let first = &model.learned().table.parameters()[0];
            let (values, bound) =
                (model.values(model.learned().params, first).unwrap(), (first.cols as f64).sqrt().recip());
            assert!(values.iter().all(|v| v.abs() <= bound) && values.iter().any(|v| v.abs() > bound / 2.0));
        }
    }
}

/// Catches any wrong term of the backward pass of any factor, for maps that share a product and for one that has it alone; a gradient
/// of the scalar head that is lost beside them.
#[test]
fn gotcha_38_gradients_of_factors_agree_with_finite_differences() {
    let (batch, h) = (batch(), 1e-5);
    let all: Vec<(&str, &[&str])> = NAMES.iter().map(|family| (*family, &[ALL_LINEAR][..])).collect();
    let some: [(&str, &[&str]); 4] = [
        ("llama", &["k_proj", "down_proj"]),
        ("llama", &["q_proj", "v_proj", "up_proj"]),
        ("gpt2", &["c_attn", "mlp.c_proj"]),
        ("phi3", &["qkv_proj"]),
    ];
    for (family, targets) in all.into_iter().chain(some) {
        let model = adapted("reference", family, targets, Outputs::BOTH);
        let value = |model: &Model, recompute, grads: Option<&Buffer>| {
            let forward = model.forward(batch.view(), Keep::ForBackward(recompute)).unwrap();
            let scalars = model.scalars(&forward).unwrap();
            let dscalars: Vec<f64> = (0..scalars.len()).map(|i| (i as f64).cos()).collect();
            let head = model.head_stats(&forward, &batch.request()).unwrap();
            let dlogp: Vec<f64> = (0..head.stats.logp.len()).map(|i| 0.5 + (i as f64).sin()).collect();
            let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let sum = product(&scalars, &dscalars) + product(&head.stats.logp, &dlogp);
            if let Some(grads) = grads {
                let cotangents = telos::model::Cotangents { logp: Some(&dlogp), ..Default::default() };
                let d = model.head_backward(head, &cotangents, grads).unwrap();
                let d = model.scalars_backward(&forward, &dscalars, Some(d), grads).unwrap();
                model.backward(forward, d, grads).unwrap();
            }
            sum
        };
        let [grads, auto, none] = [Recompute::All, Recompute::Auto, Recompute::None].map(|recompute| {
            let grads = model.flat_buffer().unwrap();
            value(&model, recompute, Some(&grads));
            grads
        });
        let bits = |grads: &Buffer| grads.download(0, grads.len()).unwrap();
        assert!(bits(&grads) == bits(&auto) && bits(&grads) == bits(&none), "{family} {targets:?}");
        let learned = model.learned();
        assert!(learned.table.get("base_model.model.score.weight").is_some());
        for parameter in learned.table.parameters() {
            let values = model.values(learned.params, parameter).unwrap();
            let found = model.values(&grads, parameter).unwrap();
            for (i, own) in values.iter().enumerate() {
                let at = |x: f64| {
                    learned.params.upload(parameter.offset + i as u64, &[x]).unwrap();
                    value(&model, Recompute::All, None)
                };
                let expected = (at(own + h) - at(own - h)) / (2.0 * h);
                learned.params.upload(parameter.offset + i as u64, &[*own]).unwrap();
                let error = (found[i] - expected).abs() / expected.abs().max(1.0);
                assert!(error < 1e-6, "{family} {}[{i}]: {}, expected {expected}", parameter.name, found[i]);
            }
        }
    }
}

/// Catches a merge without the scale or with a transposed factor, a cache that an adapter's keys do not enter, and a saved folder that
/// is another model.
#[test]
fn a_merged_model_and_a_saved_adapter_equal_the_adapted_one() {
    for family in NAMES {
        for backend in backends() {
            let base = tempfile::tempdir().unwrap();
            Model::init(&device(backend), tiny(family, false), 5).unwrap().save(base.path()).unwrap();
            let bases = telos::model::open::Bases::default();
            let frozen = bases.load(&device(backend), base.path()).unwrap();
            let mut model = frozen.adapted(Outputs::TOKENS, settings(&[ALL_LINEAR]), 9).unwrap();
            model.name_base(base.path());
            perturb(&model);
            let wanted = logits(&model, &batch());
            assert!(wanted != logits(&frozen, &batch()), "the adapter does something");
            let merged = logits(&model.merged().unwrap(), &batch());
            let most = wanted.iter().zip(&merged).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(most < 1e-5, "{family} on {backend}: merged weights are off by {most}");
            let saved = tempfile::tempdir().unwrap();
            model.save(saved.path()).unwrap();
            assert!(!saved.path().join("model.safetensors").exists());
            let again = Model::from_folder(&device(backend), saved.path()).unwrap();
            assert!(logits(&again, &batch()) == wanted, "{family} on {backend}: not the bits that were saved");
            assert_eq!(again.adapter().unwrap().settings(), model.adapter().unwrap().settings());
            let options = GenerateOptions { max_tokens: 5, temperature: 0.0, ..GenerateOptions::default() };
            let answer = |model| generate(model, &[vec![3, 1]], &options, &mut |_| {}).unwrap()[0].tokens.clone();
            assert_eq!(answer(&model), answer(&model.merged().unwrap()), "{family} on {backend}");
        }
    }
}

/// Catches frozen weights that stay on the device after their last model was dropped, and ones that are dropped under a model.
#[test]
fn frozen_weights_go_with_their_last_model() {
    let (device, folder) = (device("candle kernels"), tempfile::tempdir().unwrap());
    Model::init(&device, tiny("llama", false), 5).unwrap().save(folder.path()).unwrap();
    let bases = telos::model::open::Bases::default();
    let before = device.memory().in_use;
    let model = bases.load(&device, folder.path()).unwrap().adapted(Outputs::TOKENS, settings(&["q_proj"]), 1).unwrap();
    bases.drop_unused();
    assert!(bases.find(&device, folder.path()).is_some());
    assert!(logits(&model, &batch()).iter().all(|logit| logit.is_finite()));
    drop(model);
    bases.drop_unused();
    assert!(bases.find(&device, folder.path()).is_none());
    assert_eq!(device.memory().in_use, before);
}

/// Catches frozen weights that are loaded for each model, and an adapter that computes for another model of the same weights.
#[test]
fn models_share_their_frozen_weights() {
    let device = device("candle kernels");
    let base = Model::init(&device, tiny("llama", false), 5).unwrap();
    let before = device.memory().in_use;
    let (policy, critic) = (
        base.adapted(Outputs::TOKENS, settings(&["q_proj"]), 1).unwrap(),
        base.adapted(Outputs::SCALAR, settings(&["q_proj"]), 2).unwrap(),
    );
    let bytes = 4 * (policy.learned().table.flat_len() + critic.learned().table.flat_len());
    assert_eq!(device.memory().in_use - before, bytes);
    let frozen = logits(&base, &batch());
    perturb(&policy);
    assert!(logits(&policy, &batch()) != frozen);
    assert!(logits(&base, &batch()) == frozen);
    let forward = critic.forward(batch().view(), Keep::Nothing).unwrap();
    assert!(critic.scalars(&forward).unwrap().iter().all(|value| *value == 0.0), "a fresh value head");
}
