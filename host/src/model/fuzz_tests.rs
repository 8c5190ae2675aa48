//! Folders of models and adapters with random changes in one of their files.

use std::fs;
use std::path::{Path, PathBuf};

use plugin_api::backend::DType;
use safetensors::SafeTensors;

use super::adapter::config::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterConfig};
use super::files::weights::StoredWeights;
use super::params::Layout;
use super::shape::config::{CONFIG_FILE, ModelConfig};
use super::size::{Copies, size};
use crate::data::fuzz::{self, mutated};
use crate::error::{Error, Result};

const GENERATION: &str = "generation_config.json";
const GENERATION_TEXT: &[u8] =
    br#"{"eos_token_id": [1, 2], "temperature": 0.6, "top_k": 20, "transformers_version": "4.50.0"}"#;
const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";

/// Texts that mean something in one of the files.
const WORDS: [&str; 20] = [
    "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0},",
    "\"rope_parameters\": {\"rope_theta\": 1e4},",
    "\"partial_rotary_factor\": 0.3,",
    "\"layer_types\": [\"full_attention\"],",
    "\"sliding_window\": 4,",
    "\"head_dim\": 7,",
    "\"num_key_value_heads\": 3,",
    "\"eos_token_id\": [1, 2],",
    "\"tie_word_embeddings\": null,",
    "\"telos_scores\": [0, 0],",
    "\"telos_scalar_head\": true,",
    "\"model_type\": \"qwen3\",",
    "\"architectures\": [\"LlamaForSequenceClassification\"],",
    "\"target_modules\": \"all-linear\",",
    "\"r\": 65536,",
    "\"lora_alpha\": 1e308,",
    "\"weight_map\": {},",
    "../../model.safetensors",
    "\"data_offsets\": [0, 18446744073709551615]",
    "null",
];

fn references(kind: &str) -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/references").join(kind);
    let mut folders: Vec<PathBuf> = fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    folders
}

fn bytes_of(folders: &[PathBuf], name: &str) -> Vec<Vec<u8>> {
    folders.iter().map(|folder| fs::read(folder.join(name)).unwrap()).collect()
}

/// The same tensors in two files with an index.
struct Sharded {
    index: Vec<u8>,
    files: Vec<(String, Vec<u8>)>,
}

impl Sharded {
    fn of(weights: &[u8]) -> Sharded {
        let tensors = SafeTensors::deserialize(weights).unwrap().tensors();
        let (mut map, mut files) = (serde_json::Map::new(), Vec::new());
        for (own, number) in tensors.chunks(tensors.len().div_ceil(2)).zip(1..) {
            let name = format!("model-{number:05}-of-00002.safetensors");
            own.iter().for_each(|(tensor, _)| _ = map.insert(tensor.clone(), name.clone().into()));
            files.push((name, safetensors::serialize(own.iter().map(|(name, view)| (name, view)), None).unwrap()));
        }
        let index = serde_json::json!({"metadata": {"total_size": weights.len()}, "weight_map": map});
        Sharded { index: index.to_string().into_bytes(), files }
    }
}

/// Reads all that is read of a folder before anything is allocated on a device, and then its tensors.
fn read(folder: &Path) -> Result<()> {
    let config = ModelConfig::from_folder(folder)?;
    // Sizes are checked against the memory before a model is laid out; this is more than any test's.
    let (_, bytes) = size(&config, DType::F32, Copies::Trained(3))?;
    if bytes > 1 << 30 {
        return Err(Error::request(format!("{}: too large", folder.join(CONFIG_FILE).display())));
    }
    StoredWeights::open(folder, &config, &Layout::new(&config)?).map(drop)
}

fn outcome(read: Result<()>, folder: &Path) -> std::result::Result<&'static str, String> {
    let folder = folder.display().to_string();
    match read {
        Ok(()) => Ok("read"),
        Err(error) if error.exit_code() == 2 && error.report().contains(&folder) => Ok("refused"),
        Err(error) => Err(error.report()),
    }
}

/// Catches a panic, a hang, an allocation by a number of the file, and an error without the file's name when a model's folder is
/// damaged.
#[test]
fn changed_folders_of_models_are_read_or_refused() {
    let folders = references("models");
    let (configs, weights) = (bytes_of(&folders, CONFIG_FILE), bytes_of(&folders, WEIGHTS));
    let sharded: Vec<Sharded> = weights.iter().map(|weights| Sharded::of(weights)).collect();
    fuzz::run("models", if cfg!(debug_assertions) { 300 } else { 3000 }, move |random| {
        let folder = tempfile::tempdir().unwrap();
        let at = random.below(configs.len());
        // Now and then nothing is changed, so that a folder that is always refused is noticed.
        let changed = random.below(6);
        let mut write = |number: usize, name: &str, own: &[u8]| {
            let bytes = if number == changed { mutated(random, &[own.to_vec()], &WORDS) } else { own.to_vec() };
            fs::write(folder.path().join(name), bytes).unwrap();
        };
        write(0, CONFIG_FILE, &configs[at]);
        write(1, GENERATION, GENERATION_TEXT);
        if [2, 4, 5].contains(&changed) {
            write(2, INDEX, &sharded[at].index);
            sharded[at].files.iter().zip([9, 5]).for_each(|((name, bytes), number)| write(number, name, bytes));
        } else {
            write(3, WEIGHTS, &weights[at]);
        }
        let read = read(folder.path());
        if let (4, Err(error)) = (changed, &read) {
            return Err(format!("{}: {}", folders[at].display(), error.report()));
        }
        outcome(read, folder.path())
    });
}

/// As above, of an adapter's settings and tensors.
#[test]
fn changed_adapters_are_read_or_refused() {
    let folders = references("lora");
    let (configs, weights) = (bytes_of(&folders, ADAPTER_CONFIG), bytes_of(&folders, ADAPTER_WEIGHTS));
    fuzz::run("adapters", if cfg!(debug_assertions) { 300 } else { 3000 }, move |random| {
        let folder = tempfile::tempdir().unwrap();
        let at = random.below(configs.len());
        let changed = random.below(3);
        let (config, weights) = match changed {
            0 => (mutated(random, &configs, &WORDS), weights[at].clone()),
            1 => (configs[at].clone(), mutated(random, &weights, &WORDS)),
            _ => (configs[at].clone(), weights[at].clone()),
        };
        fs::write(folder.path().join(ADAPTER_CONFIG), config).unwrap();
        fs::write(folder.path().join(ADAPTER_WEIGHTS), weights).unwrap();
        let read = AdapterConfig::read(folder.path()).and_then(|_| {
            let mut file = super::files::tensor_file::TensorFile::open(&folder.path().join(ADAPTER_WEIGHTS))?;
            file.names().iter().try_for_each(|name| file.values(name).map(drop))
        });
        if let (2, Err(error)) = (changed, &read) {
            return Err(format!("{}: {}", folders[at].display(), error.report()));
        }
        outcome(read, folder.path())
    });
}
