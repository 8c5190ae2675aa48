//! Devices, oracle files and one training step, shared by the tests of this binary.

use std::path::{Path, PathBuf};

use plugin_api::abi::DType;
use plugin_api::backend::{Backend, Session, SessionOptions};
use plugin_api::manifest::kind;
use serde_json::{Value, json};
use telos::device::{Buffer, Device};
use telos::families;
use telos::families::NAMES;
use telos::families::family::{Bias, Mlp, Residual, Windows};
use telos::model::{BatchView, Cotangents, HeadRequest, Keep, Model, ModelConfig, Recompute};
use telos::plugins::Registry;

pub const RECOMPUTES: [Recompute; 3] = [Recompute::None, Recompute::Auto, Recompute::All];

/// Opens a backend; `tag` distinguishes the handles of two sessions.
pub fn session(backend: &str, tag: u16) -> (Box<dyn Session>, DType) {
    let options = |path: &str| {
        let mut options = SessionOptions { threads: 2, tag, ..SessionOptions::default() };
        options.options.insert("path".into(), path.into());
        options
    };
    let candle = |path: &str| backend_candle::Candle::open(&options(path)).expect("candle opens on cpu");
    match backend {
        "reference" => {
            let options = SessionOptions { tag, ..SessionOptions::default() };
            let session = backend_reference::ReferenceBackend::open(&options).expect("the reference opens");
            (Box::new(session), DType::F64)
        }
        "candle kernels" => (Box::new(candle("kernels")), DType::F32),
        "candle generic" => (Box::new(candle("generic")), DType::F32),
        // Through its library, because it is a separate workspace.
        "torch" => {
            let options = SessionOptions { threads: 2, tag, ..SessionOptions::default() };
            let plugins = Registry::discover(&[plugins()]);
            let library = plugins.load(kind::BACKEND, "torch").expect("run `cargo xtask torch`");
            (Box::new(library.session(&options).expect("torch opens on cpu")), DType::F32)
        }
        other => panic!("no backend {other}"),
    }
}

pub fn device(backend: &str) -> Device {
    let (session, compute) = session(backend, 1);
    Device::new(session, compute).unwrap_or_else(|e| panic!("{backend}: {e:?}"))
}

/// The folder into which `cargo xtask` puts plugins.
fn plugins() -> PathBuf {
    let beside = || std::env::current_exe().ok().and_then(|own| Some(own.parent()?.parent()?.to_owned()));
    let folder = std::env::var_os("TELOS_TEST_BIN").map(PathBuf::from).or_else(beside);
    folder.expect("a test lies in target/release/deps").join("plugins")
}

/// Every backend of this project; torch, which `cargo xtask torch` builds, on Linux only.
pub fn backends() -> Vec<&'static str> {
    let mut all = vec!["reference", "candle kernels", "candle generic"];
    all.extend(cfg!(target_os = "linux").then_some("torch"));
    all
}

pub fn oracles() -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/references");
    std::env::var_os("TELOS_ORACLES").map_or_else(here, PathBuf::from)
}

/// The reference models, by the names of their folders; every family is among them.
pub fn models() -> Vec<String> {
    let folder = oracles().join("models");
    let listed = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| folder.join(name).join("config.json").is_file()).collect();
    names.sort();
    let family =
        |name: &String| json(&folder.join(name).join("config.json"))["model_type"].as_str().expect("a name").to_owned();
    let families: Vec<String> = names.iter().map(family).collect();
    assert!(NAMES.iter().all(|name| families.iter().any(|family| family == name)), "{families:?}");
    names
}

/// The reference trajectories of this kind, `KIND_*.json`, each with its name.
pub fn trajectories(kind: &str) -> Vec<(String, Value)> {
    let folder = oracles().join("trajectories");
    let listed = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with(&format!("{kind}_")) && name.ends_with(".json")).collect();
    names.sort();
    assert!(!names.is_empty(), "{} holds no {kind}_*.json", folder.display());
    names.into_iter().map(|name| (name.clone(), json(&folder.join(name)))).collect()
}

pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn ints(value: &Value) -> Vec<i32> {
    value.as_array().expect("a list").iter().map(|v| v.as_i64().expect("an integer") as i32).collect()
}

pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(float).collect()
}

pub fn float(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// Packed sequences; every token but a sequence's last is supervised by the next one.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    pub tokens: Vec<i32>,
    pub positions: Vec<i32>,
    pub offsets: Vec<i32>,
    pub targets: Vec<i32>,
    pub supervised: Vec<i32>,
    /// Length of each sequence's prompt: its first half. Only models with a prefix mask read it.
    pub prompts: Vec<i32>,
}

impl Packed {
    pub fn new(sequences: &[Vec<i32>]) -> Packed {
        let mut packed = Packed { offsets: vec![0], ..Packed::default() };
        for sequence in sequences {
            let start = packed.tokens.len() as i32;
            packed.tokens.extend(sequence);
            packed.positions.extend(0..sequence.len() as i32);
            packed.prompts.push(sequence.len().div_ceil(2) as i32);
            packed.targets.extend(sequence.iter().skip(1));
            // The last token has no target: an invalid id, so that reading it fails.
            packed.targets.push(-1);
            packed.supervised.extend(start..packed.tokens.len() as i32 - 1);
            packed.offsets.push(packed.tokens.len() as i32);
        }
        packed
    }

    pub fn view(&self) -> BatchView<'_> {
        let Packed { tokens, positions, offsets, prompts, .. } = self;
        BatchView { tokens, positions, offsets, prompts }
    }

    pub fn request(&self) -> HeadRequest<'_> {
        HeadRequest { rows: Some(&self.supervised), ..HeadRequest::new(&self.targets) }
    }
}

/// Mean cross-entropy over supervised tokens; its gradient is added to `grads`.
pub fn cross_entropy(model: &Model, batch: &Packed, recompute: Recompute, fused: bool, grads: &Buffer) -> f64 {
    let count = batch.supervised.len() as f64;
    let forward = model.forward(batch.view(), Keep::ForBackward(recompute)).unwrap();
    let dlogp = vec![-1.0 / count; batch.supervised.len()];
    let cotangents = Cotangents { logp: Some(&dlogp), ..Cotangents::default() };
    let (stats, dhidden) = if fused {
        model.head_fused(&forward, &batch.request(), &cotangents, grads).unwrap()
    } else {
        let head = model.head_stats(&forward, &batch.request()).unwrap();
        (head.stats.clone(), model.head_backward(head, &cotangents, grads).unwrap())
    };
    model.backward(forward, dhidden, grads).unwrap();
    -stats.logp.iter().sum::<f64>() / count
}

/// All gradients of the mean cross-entropy, in a fresh buffer.
pub fn gradient(model: &Model, batch: &Packed, recompute: Recompute, fused: bool) -> (f64, Buffer) {
    let grads = model.flat_buffer().unwrap();
    let loss = cross_entropy(model, batch, recompute, fused, &grads);
    (loss, grads)
}

/// A small config of a family, whose windows are shorter than the sequences of tests. `other_options` inverts the tying, gives biases
/// to a family that may have them, and another GELU to a plain feed-forward block.
pub fn tiny(family: &str, other_options: bool) -> ModelConfig {
    let family = families::find(family).unwrap();
    let (keys, defaults) = (&family.keys, &family.defaults);
    let gelu = if family.mlp == Mlp::Plain && other_options { "gelu" } else { defaults.activation };
    let mut config = json!({
        "model_type": family.model_type, keys.dim: 8, keys.layers: 2, keys.heads: 2, keys.context: 8, keys.activation: gelu,
        "vocab_size": 11, "initializer_range": 0.3, "tie_word_embeddings": defaults.tied != other_options,
    });
    if let Some(key) = keys.kv_heads {
        config[key] = json!(1);
    }
    if defaults.hidden_factor.is_none() {
        config[keys.hidden] = json!(12);
    }
    if defaults.head_dim.is_some() {
        config[keys.head_dim.expect("its key")] = json!(4);
    }
    for bias in family.biases.all() {
        if let Bias::Key(key, default) = bias {
            config[key] = json!(default != other_options);
        }
    }
    if let Residual::Configured { default } = family.residual {
        config["use_parallel_residual"] = json!(default != other_options);
    }
    if family.rope.skips_layers {
        config["no_rope_layers"] = json!([1, 0]);
    }
    if family.windows != Windows::Never {
        config["sliding_window"] = json!(3);
        config["use_sliding_window"] = json!(true);
    }
    if !matches!(family.windows, Windows::Never | Windows::EveryLayer { .. }) {
        config["layer_types"] = json!(["full_attention", "sliding_attention"]);
    }
    let config = ModelConfig::parse(&config.to_string(), "tiny").unwrap();
    assert_eq!(config.windows.contains(&3), family.windows != Windows::Never, "{}", family.model_type);
    config
}

/// Moves every parameter off its initial value, so that norms and biases matter.
pub fn perturb(model: &Model) {
    for (index, parameter) in model.layout().parameters().iter().enumerate() {
        let mut values = model.values(model.params(), parameter).unwrap();
        for (i, value) in values.iter_mut().enumerate() {
            *value += 0.3 * ((i * 7 + index * 13) as f64).sin();
        }
        model.params().upload(parameter.offset, &values).unwrap();
    }
    model.refresh_shadow().unwrap();
}

pub fn l2(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Fails unless `got` is within `tolerance` of `expected`, relative to it.
pub fn close(what: &str, got: f64, expected: f64, tolerance: f64) {
    let error = (got - expected).abs() / expected.abs().max(1e-30);
    assert!(error <= tolerance, "{what}: {got}, expected {expected} (off by {error:.1e}, allowed {tolerance:.0e})");
}
