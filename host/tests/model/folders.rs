//! Loading and saving model folders: the round trip, the names that files may use, and every folder that is refused.

use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::Value;
use telos::families::NAMES;
use telos::model::files::save::{Storage, convert};
use telos::model::files::tensor_file::{Content, Safetensors, TensorData, TensorFile, write_tensors};
use telos::model::files::weights::weight_files;
use telos::model::{Model, ModelConfig};
use tempfile::TempDir;

use crate::support::{backends, device, json, models, oracles, perturb, tiny};

/// Keys of config.json that get another value without another meaning.
const WRITTEN: [&str; 5] = ["dtype", "torch_dtype", "rope_parameters", "rope_scaling", "max_window_layers"];

type Tensors = Vec<(String, Vec<usize>, Vec<f64>)>;

/// The tensors of a saved tiny model.
fn saved(family: &str) -> (TempDir, Tensors) {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::init(&device("candle kernels"), tiny(family, false), 3).unwrap();
    perturb(&model);
    model.save(folder.path()).unwrap();
    let mut file = TensorFile::open(&folder.path().join("model.safetensors")).unwrap();
    let names = file.names();
    let tensors = names.into_iter().map(|name| {
        let values = file.values(&name).unwrap();
        (name.clone(), file.shape(&name).unwrap().to_vec(), values)
    });
    let tensors = tensors.collect();
    (folder, tensors)
}

fn write(path: &Path, dtype: Dtype, tensors: &Tensors) {
    let encode = |value: &f64| match dtype {
        Dtype::F64 => value.to_le_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f32(*value as f32).to_le_bytes().to_vec(),
        Dtype::BF16 => half::bf16::from_f32(*value as f32).to_le_bytes().to_vec(),
        Dtype::I32 => (*value as i32).to_le_bytes().to_vec(),
        _ => (*value as f32).to_le_bytes().to_vec(),
    };
    let data = tensors.iter().map(|(name, shape, values)| {
        let content = Content::Later(Box::new(move || Ok(values.iter().flat_map(encode).collect())));
        (name.clone(), TensorData { dtype, shape: shape.clone(), content })
    });
    write_tensors(path, &data.collect::<Vec<_>>(), true).unwrap();
}

fn flat(model: &Model) -> Vec<u64> {
    model.params().download(0, model.params().len()).unwrap().iter().map(|v| v.to_bits()).collect()
}

/// Catches a transposition that is not undone, a tied head that is stored, values rounded on the way.
#[test]
fn saving_and_loading_keeps_every_bit_and_saves_the_same_bytes() {
    for (family, other) in NAMES.iter().flat_map(|family| [(family, false), (family, true)]) {
        for backend in backends() {
            let device = device(backend);
            let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let mut model = Model::init(&device, tiny(family, other), 3).unwrap();
            perturb(&model);
            (model.config_mut().bos, model.config_mut().eos) = (Some(1), vec![2, 3]);
            model.save(first.path()).unwrap();
            let again = Model::from_folder(&device, first.path()).unwrap();
            assert_eq!(flat(&model), flat(&again), "{family} on {backend}");
            // The loaded model keeps generation_config.json of the first save.
            assert!(again.config().generation.is_some());
            assert_eq!(again.config().files.len(), 2, "config.json and generation_config.json were read");
            let read = ModelConfig {
                generation: None,
                files: Vec::new(),
                original: model.config().original.clone(),
                ..again.config().clone()
            };
            assert_eq!(*model.config(), read);
            again.save(second.path()).unwrap();
            for file in ["model.safetensors", "config.json", "generation_config.json"] {
                let read = |folder: &TempDir| std::fs::read(folder.path().join(file)).unwrap();
                assert!(read(&first) == read(&second), "{family} on {backend}: {file}");
            }
        }
    }
}

/// Catches names, shapes or an order of (in, out) that transformers would not read back.
#[test]
fn a_saved_model_has_the_names_shapes_and_values_of_its_original_file() {
    for family in models() {
        let original = oracles().join("models").join(&family);
        let folder = tempfile::tempdir().unwrap();
        Model::from_folder(&device("candle kernels"), &original).unwrap().save(folder.path()).unwrap();
        let open = |folder: &Path| TensorFile::open(&folder.join("model.safetensors")).unwrap();
        let (mut theirs, mut ours) = (open(&original), open(folder.path()));
        let file = Safetensors::open(&folder.path().join("model.safetensors")).unwrap();
        assert_eq!(theirs.names(), ours.names());
        for name in theirs.names() {
            assert_eq!(theirs.shape(&name), ours.shape(&name), "{name}");
            assert!(theirs.values(&name).unwrap() == ours.values(&name).unwrap(), "{name}");
            assert_eq!(file.dtype(&name).unwrap(), Dtype::F32);
        }
        let config = ModelConfig::from_folder(&original).unwrap();
        let saved = ModelConfig::from_folder(folder.path()).unwrap();
        // Every key of the original is kept: those that Telos does not write with their values.
        for (key, value) in &config.original {
            let kept = saved.original.get(key);
            assert!(kept.is_some(), "{family}: {key}");
            let is_dropout = config.family.unused.iter().any(|(unused, _)| unused == key);
            // Null stands for the default, which is written out.
            let same = kept == Some(value)
                || value.is_null()
                || kept.and_then(Value::as_f64).is_some_and(|kept| value.as_f64() == Some(kept));
            assert!(is_dropout || WRITTEN.contains(&key.as_str()) || same, "{family}: {key} is {kept:?}, was {value}");
        }
        // Notes name the file.
        let (generation, files, notes) = (config.generation.clone(), config.files.clone(), config.notes.clone());
        let original = config.original.clone();
        assert_eq!(ModelConfig { generation, files, notes, original, ..saved }, config);
    }
}

/// Catches f16 or bf16 read as something else, f64 rounded twice, and shards or old names that are not found.
#[test]
fn other_dtypes_shards_prefixes_and_known_extras_are_read() {
    let device = device("candle kernels");
    let (folder, tensors) = saved("gpt2");
    let expected = flat(&Model::from_folder(&device, folder.path()).unwrap());
    let path = folder.path().join("model.safetensors");
    write(&path, Dtype::F64, &tensors);
    assert_eq!(flat(&Model::from_folder(&device, folder.path()).unwrap()), expected);
    for (dtype, tolerance) in [(Dtype::F16, 1e-3), (Dtype::BF16, 1e-2)] {
        write(&path, dtype, &tensors);
        let rounded = flat(&Model::from_folder(&device, folder.path()).unwrap());
        for (a, b) in rounded.iter().zip(&expected) {
            let (a, b) = (f64::from_bits(*a), f64::from_bits(*b));
            assert!((a - b).abs() <= tolerance * b.abs() + 1e-7, "{dtype:?}: {a}, expected {b}");
        }
    }
    // As the first GPT-2 files have it: no prefix, causal masks stored beside the weights, the tied head too.
    let head = tensors.iter().find(|(name, ..)| name.ends_with("wte.weight")).unwrap().clone();
    let strip = |name: &String| name.trim_start_matches("transformer.").to_owned();
    let mut old: Tensors = tensors.iter().map(|(n, s, v)| (strip(n), s.clone(), v.clone())).collect();
    old.push(("h.0.attn.bias".into(), vec![1, 1, 2, 2], vec![1.0, 0.0, 1.0, 1.0]));
    old.push(("lm_head.weight".into(), head.1, head.2));
    write(&path, Dtype::F32, &old);
    assert_eq!(flat(&Model::from_folder(&device, folder.path()).unwrap()), expected);
    std::fs::remove_file(&path).unwrap();
    let (left, right) = tensors.split_at(5);
    let shards = [("a.safetensors", left), ("b.safetensors", right)];
    let mut map = serde_json::Map::new();
    for (name, part) in shards {
        write(&folder.path().join(name), Dtype::F32, &part.to_vec());
        map.extend(part.iter().map(|(tensor, ..)| (tensor.clone(), name.into())));
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_eq!(flat(&Model::from_folder(&device, folder.path()).unwrap()), expected);
}

/// Loads what remains of a good folder after `spoil`; returns the report of the refusal.
fn refused(spoil: impl FnOnce(&Path, Tensors)) -> String {
    let (folder, tensors) = saved("llama");
    spoil(folder.path(), tensors);
    let device = device("reference");
    let before = device.memory().handles;
    let error = Model::from_folder(&device, folder.path()).err().expect("a refusal");
    assert_eq!(error.exit_code(), 2, "{error:?}");
    assert_eq!(device.memory().handles, before, "a refused folder leaves buffers behind");
    error.report()
}

fn with(change: impl FnOnce(&mut Tensors)) -> String {
    refused(|folder, mut tensors| {
        change(&mut tensors);
        write(&folder.join("model.safetensors"), Dtype::F32, &tensors);
    })
}

fn has(report: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| report.contains(part)), "{report}\nlacks one of {parts:?}");
}

/// Each case is a folder that would train on wrong or undefined weights; the message names file, tensor, both sides.
#[test]
fn hostile_tensors_are_refused_with_file_and_name() {
    let missing = with(|tensors| tensors.retain(|(name, ..)| name != "model.norm.weight"));
    has(&missing, &["model.norm.weight", "[8]", "missing"]);
    let extra = with(|tensors| tensors.push(("model.layers.2.extra.weight".into(), vec![1], vec![1.0])));
    has(&extra, &["model.safetensors", "model.layers.2.extra.weight", "extra"]);
    let misshaped = with(|tensors| {
        let norm = tensors.iter_mut().find(|(name, ..)| name == "model.norm.weight").unwrap();
        (norm.1, norm.2) = (vec![2, 4], vec![1.0; 8]);
    });
    has(&misshaped, &["model.safetensors", "model.norm.weight", "[2, 4]", "[8]"]);
    for (value, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let sick = with(|tensors| tensors[3].2[5] = value);
        has(&sick, &["model.safetensors", text, "element 5"]);
    }
    let twice = with(|tensors| {
        let (_, shape, values) = tensors.iter().find(|(name, ..)| name == "model.norm.weight").unwrap().clone();
        tensors.push(("norm.weight".into(), shape, values));
    });
    has(&twice, &["norm.weight", "twice"]);
    let integers = refused(|folder, tensors| write(&folder.join("model.safetensors"), Dtype::I32, &tensors));
    has(&integers, &["model.safetensors", "I32", "expected F32"]);
    let all_at_once = with(|tensors| tensors.retain(|(name, ..)| !name.contains("layers.1.")));
    has(&all_at_once, &["layers.1.mlp.up_proj.weight", "layers.1.input_layernorm.weight"]);
}

/// Each case is a damaged or crafted file that would be read past its end, allocated for, or followed elsewhere.
#[test]
fn hostile_files_are_refused() {
    let cut = refused(|folder, _| {
        let path = folder.join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    });
    has(&cut, &["model.safetensors", "truncated"]);
    for bytes in [vec![], vec![255; 64], b"not a model at all".to_vec(), [&3_u64.to_le_bytes()[..], b"{]}"].concat()] {
        let report = refused(|folder, _| std::fs::write(folder.join("model.safetensors"), &bytes).unwrap());
        has(&report, &["model.safetensors"]);
    }
    let none = refused(|folder, _| std::fs::remove_file(folder.join("model.safetensors")).unwrap());
    has(&none, &["model.safetensors.index.json", "safetensors"]);
    let outside = refused(|folder, _| {
        std::fs::remove_file(folder.join("model.safetensors")).unwrap();
        let index = r#"{"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}"#;
        std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    });
    has(&outside, &["model.norm.weight", "plain file name"]);
    let unlisted = refused(|folder, _| {
        std::fs::rename(folder.join("model.safetensors"), folder.join("a.safetensors")).unwrap();
        let index = r#"{"weight_map": {"model.absent.weight": "a.safetensors"}}"#;
        std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    });
    has(&unlisted, &["model.absent.weight", "a.safetensors"]);
    let no_config = refused(|folder, _| std::fs::remove_file(folder.join("config.json")).unwrap());
    has(&no_config, &["config.json"]);
    let huge = refused(|folder, _| {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"vocab_size\": 11", "\"vocab_size\": 200000000")).unwrap();
    });
    has(&huge, &["model.embed_tokens.weight", "200000000"]);
}

/// Catches a stored head that differs from the embedding and is ignored without a message.
#[test]
fn a_tied_head_that_differs_is_refused() {
    let (folder, mut tensors) = saved("gpt2");
    let (_, shape, mut values) = tensors.iter().find(|(name, ..)| name.ends_with("wte.weight")).unwrap().clone();
    values[0] += 1.0;
    tensors.push(("lm_head.weight".into(), shape, values));
    write(&folder.path().join("model.safetensors"), Dtype::F32, &tensors);
    let error = Model::from_folder(&device("reference"), folder.path()).err().unwrap();
    has(&error.report(), &["lm_head.weight", "tied", "tie_word_embeddings"]);
}

/// Values that replace those of every key.
const HOSTILE: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "1",
    "2",
    "-1",
    "3",
    "7",
    "0.5",
    "-0.0",
    "1e308",
    "1e-320",
    "4096",
    "1048577",
    "9007199254740993",
    "18446744073709551615",
    "\"\"",
    "\"yarn\"",
    "\"longrope\"",
    "\"dynamic\"",
    "[]",
    "[0]",
    "[1, 0]",
    "[null]",
    "[1e308, 1, 2]",
    "{}",
    "{\"rope_type\": \"yarn\", \"factor\": 2}",
    "{\"type\": \"longrope\", \"short_factor\": [], \"long_factor\": []}",
    "[\"sliding_attention\", \"full_attention\"]",
];

/// Catches a value of config.json that makes a panic, an error without the file's name, or a model that is written as another one.
#[test]
fn any_value_of_any_key_of_the_config_is_read_or_refused() {
    let (mut read, mut refused) = (0, 0);
    for (name, file) in models().iter().flat_map(|name| [(name, "config.json"), (name, "config_v4.json")]) {
        let original = json(&oracles().join("models").join(name).join(file));
        let mut places: Vec<String> = original.as_object().unwrap().keys().map(|key| format!("/{key}")).collect();
        for table in
            ["rope_parameters", "rope_scaling", "rope_parameters/full_attention", "rope_parameters/sliding_attention"]
        {
            let inside = original.pointer(&format!("/{table}")).and_then(Value::as_object);
            places.extend(inside.into_iter().flatten().map(|(key, _)| format!("/{table}/{key}")));
        }
        for (place, value) in places.iter().flat_map(|place| HOSTILE.iter().map(move |value| (place, value))) {
            let mut config = original.clone();
            *config.pointer_mut(place).unwrap() = serde_json::from_str(value).unwrap();
            match ModelConfig::parse(&config.to_string(), "m/config.json") {
                Ok(config) => {
                    let text = config.to_json("float32").to_string();
                    let again = ModelConfig::parse(&text, "again").unwrap_or_else(|error| {
                        panic!("{name}/{file}: {place} = {value} is written as {text}: {}", error.report())
                    });
                    let (notes, original) = (config.notes.clone(), config.original.clone());
                    let again = ModelConfig { notes, original, ..again };
                    assert_eq!(again, config, "{name}/{file}: {place} = {value}");
                    let _ = telos::model::Layout::new(&config);
                    read += 1;
                }
                Err(error) => {
                    assert!(error.message().contains("m/config.json"), "{name}/{file}: {place} = {value}: {error:?}");
                    assert_eq!(error.exit_code(), 2);
                    refused += 1;
                }
            }
        }
    }
    assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
}

/// Catches a key that Telos does not know and that is lost, with what is inside; one of Telos that outlives its meaning; and
/// keys that change their order with every save.
#[test]
fn unknown_keys_of_config_json_are_saved() {
    let (folder, _) = saved("llama");
    let path = folder.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["transformers.js_config"] = serde_json::json!({"kv_cache_dtype": {"q4f16": "float16"}});
    config["telos_scalar_head"] = serde_json::json!(false);
    std::fs::write(&path, config.to_string()).unwrap();
    let again = tempfile::tempdir().unwrap();
    Model::from_folder(&device("candle kernels"), folder.path()).unwrap().save(again.path()).unwrap();
    let read = |folder: &Path| std::fs::read_to_string(folder.join("config.json")).unwrap();
    let found: serde_json::Value = serde_json::from_str(&read(again.path())).unwrap();
    assert_eq!(found["transformers.js_config"], config["transformers.js_config"]);
    assert!(found.get("telos_scalar_head").is_none());
    let third = tempfile::tempdir().unwrap();
    Model::from_folder(&device("candle kernels"), again.path()).unwrap().save(third.path()).unwrap();
    assert_eq!(read(again.path()), read(third.path()));
}

/// Catches weights that are not rounded to the nearest, a shard that the index does not name, master weights that are rounded too or
/// that are read where the folder's own weights should be.
#[test]
fn weights_are_stored_as_asked() {
    let device = device("candle kernels");
    let model = Model::init(&device, tiny("gpt2", false), 3).unwrap();
    perturb(&model);
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage { dtype: Some(Dtype::BF16), shard_size: Some(2000) };
    model.save_as(folder.path(), storage).unwrap();
    model.save_masters(folder.path(), storage).unwrap();
    let files = weight_files(folder.path()).unwrap();
    assert!(files.len() > 2, "{files:?}");
    let read = |masters: bool| {
        let outputs = model.config().outputs;
        let open = if masters { Model::from_checkpoint } else { Model::from_folder_as };
        flat(&open(&device, folder.path(), outputs).unwrap())
    };
    assert_eq!(read(true), flat(&model));
    let rounded = |bits: &u64| half::bf16::from_f32(f64::from_bits(*bits) as f32).to_f64().to_bits();
    assert_eq!(read(false), flat(&model).iter().map(rounded).collect::<Vec<_>>());
    let whole = tempfile::tempdir().unwrap();
    model.save_masters(whole.path(), Storage::default()).unwrap();
    assert_eq!(std::fs::read_dir(whole.path()).unwrap().count(), 0);
    // A conversion reads the master weights.
    let converted = tempfile::tempdir().unwrap();
    convert(folder.path(), converted.path(), Storage::default()).unwrap();
    assert_eq!(flat(&Model::from_folder(&device, converted.path()).unwrap()), flat(&model));
}
