//! Logits, loss, gradients and greedy tokens of transformers' own models, on every backend.

use serde_json::Value;
use telos::generate::{GenerateOptions, generate};
use telos::model::{Keep, Model};

use crate::support::{
    Packed, RECOMPUTES, backends, close, device, float, floats, gradient, ints, json, l2, models, oracles,
};

struct Oracle {
    folder: std::path::PathBuf,
    expected: Value,
    sequences: Vec<Vec<i32>>,
}

fn oracle(family: &str) -> Oracle {
    let folder = oracles().join("models").join(family);
    let expected = json(&folder.join("expected.json"));
    let rows = |key: &str| expected[key].as_array().unwrap().iter().map(ints).collect::<Vec<_>>();
    let sequences = rows("input_ids")
        .into_iter()
        .zip(rows("attention_mask"))
        .map(|(ids, mask)| ids.into_iter().zip(mask).filter(|(_, mask)| *mask == 1).map(|(id, _)| id).collect());
    let sequences = sequences.collect();
    Oracle { folder, expected, sequences }
}

/// Catches a wrong epsilon, GELU variant, rotary pairing, score scale or head sharing: each moves logits by 4e-4 or more.
#[test]
fn logits_and_loss_are_those_of_transformers() {
    for family in models() {
        let Oracle { folder, expected, sequences } = oracle(&family);
        let packed = Packed::new(&sequences);
        for backend in backends() {
            let model = Model::from_folder(&device(backend), &folder).unwrap();
            let forward = model.forward(packed.view(), Keep::Nothing).unwrap();
            let logits = model.logits(forward.hidden()).unwrap().to_vec().unwrap();
            let mut rows = logits.chunks(model.config().vocab as usize);
            for (s, sequence) in sequences.iter().enumerate() {
                for position in 0..sequence.len() {
                    let wanted = floats(&expected["logits"][s][position]);
                    for (got, wanted) in rows.next().unwrap().iter().zip(wanted) {
                        assert!((got - wanted).abs() < 1e-4, "{family} on {backend}: {got}, expected {wanted}");
                    }
                }
            }
            let head = model.head_stats(&forward, &packed.request()).unwrap();
            let loss = -head.stats.logp.iter().sum::<f64>() / packed.supervised.len() as f64;
            close(&format!("{family} loss on {backend}"), loss, float(&expected["loss"]), 1e-5);
        }
    }
}

/// Catches a wrong or missing gradient of any tensor, on any backend, with any recompute setting, by either head path.
#[test]
fn gradient_norms_are_those_of_transformers_with_every_recompute_setting() {
    for family in models() {
        let Oracle { folder, expected, sequences } = oracle(&family);
        let packed = Packed::new(&sequences);
        for backend in backends() {
            let model = Model::from_folder(&device(backend), &folder).unwrap();
            for (recompute, fused) in RECOMPUTES.into_iter().flat_map(|r| [(r, false), (r, true)]) {
                let (loss, grads) = gradient(&model, &packed, recompute, fused);
                let what = format!("{family} on {backend}, {recompute:?}, fused {fused}");
                close(&format!("{what}: loss"), loss, float(&expected["loss"]), 1e-5);
                let gradients = expected["gradients"].as_object().unwrap();
                assert_eq!(gradients.len(), model.layout().parameters().len());
                for (name, wanted) in gradients {
                    // Transformers calls it by another name in memory than in files.
                    let stored = if name == "lm_head.weight" { model.config().family.names.head } else { "" };
                    let found = model.layout().get(name).or_else(|| model.layout().get(&format!("{stored}.weight")));
                    let parameter = found.unwrap_or_else(|| panic!("{family} lacks {name}"));
                    let values = model.values(&grads, parameter).unwrap();
                    close(&format!("{what}: l2 of {name}"), l2(&values), float(&wanted["l2_f64"]), 1e-4);
                    let (sum, scale) = (values.iter().sum::<f64>(), values.iter().map(|v| v.abs()).sum::<f64>());
                    let error = (sum - float(&wanted["sum_f64"])).abs() / scale;
                    assert!(error < 1e-4, "{what}: sum of {name} is {sum}, expected {}", wanted["sum_f64"]);
                }
            }
        }
    }
}

/// Catches a cache that is off by one, that samples share by mistake, or that holds unrotated keys.
#[test]
fn greedy_tokens_are_those_of_transformers_alone_and_together() {
    for family in models() {
        let Oracle { folder, expected, .. } = oracle(&family);
        let lists = |key: &str| expected["greedy"][key].as_array().unwrap().iter().map(ints).collect::<Vec<_>>();
        let (prompts, wanted) = (lists("prompts"), lists("continuations"));
        for backend in backends() {
            let model = Model::from_folder(&device(backend), &folder).unwrap();
            let options =
                GenerateOptions { max_tokens: wanted[0].len(), temperature: 0.0, ..GenerateOptions::default() };
            let together = generate(&model, &prompts, &options, &mut |_| {}).unwrap();
            for (i, prompt) in prompts.iter().enumerate() {
                let alone = generate(&model, std::slice::from_ref(prompt), &options, &mut |_| {}).unwrap();
                assert_eq!(alone[0].tokens, wanted[i], "{family} on {backend}, prompt {i} alone");
                assert_eq!(together[i].tokens, wanted[i], "{family} on {backend}, prompt {i} together");
            }
        }
    }
}

/// Catches a key that is read from only one of the two layouts of config.json.
#[test]
fn both_layouts_of_the_config_give_the_same_model() {
    for family in models() {
        let Oracle { folder, sequences, .. } = oracle(&family);
        let older = tempfile::tempdir().unwrap();
        std::fs::copy(folder.join("config_v4.json"), older.path().join("config.json")).unwrap();
        std::fs::copy(folder.join("model.safetensors"), older.path().join("model.safetensors")).unwrap();
        let device = device("reference");
        let hidden = |folder: &std::path::Path| {
            let model = Model::from_folder(&device, folder).unwrap();
            let forward = model.forward(Packed::new(&sequences).view(), Keep::Nothing).unwrap();
            forward.hidden().to_vec().unwrap()
        };
        assert_eq!(hidden(&folder), hidden(older.path()), "{family}");
    }
}
