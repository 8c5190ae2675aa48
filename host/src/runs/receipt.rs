//! `receipt.json`: everything that made the result, so that a run is never a mystery.
//!
//! It holds no time of day and no folder of this machine beyond what the user wrote: two equal runs have equal receipts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::disk;
use crate::data::rows::RowCounts;
use crate::error::{Error, Result};

/// What made a run's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The host.
    pub telos: Build,
    /// The command line, program first.
    pub command: Vec<String>,
    /// Seed of everything random.
    pub seed: u64,
    /// What computed.
    pub backend: BackendUse,
    /// Every plugin that was loaded, in the order of loading.
    pub plugins: Vec<PluginUse>,
    /// Where the weights came from.
    pub model: ModelSource,
    /// The models beside it that come from somewhere else: `reference`, `critic`, and `reward.N` by position.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub roles: BTreeMap<String, ModelSource>,
    /// sha256 of the tokenizer's definition.
    pub tokenizer_sha256: String,
    /// Every file that data came from, in the order of reading.
    pub data: Vec<DataSource>,
    /// What became of the rows; absent for running text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rows: Option<RowCounts>,
}

/// How the host was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its version.
    pub version: String,
    /// The compiler.
    pub rustc: String,
    /// What it was built for.
    pub target: String,
}

impl Build {
    /// This program's.
    pub fn this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rustc: env!("TELOS_RUSTC").to_owned(),
            target: env!("TELOS_TARGET").to_owned(),
        }
    }
}

/// The backend and what it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendUse {
    /// Id of the plugin.
    pub plugin: String,
    /// Device, in the backend's words.
    pub device: String,
    /// Type of the computation.
    pub dtype: String,
    /// Threads; they never change the result.
    pub threads: usize,
}

/// A plugin as it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginUse {
    /// Its id.
    pub id: String,
    /// Its kind: objective, backend, reward.
    pub kind: String,
    /// Its own version.
    pub version: String,
    /// Contract it was built with, as major.minor.
    pub abi: String,
    /// Name of the file, without its folder.
    pub file: String,
    /// sha256 of the file.
    pub sha256: String,
}

/// Where the weights came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSource {
    /// As the experiment says; absent where the model began with random weights.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// sha256 of the weights' file; absent as above.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
}

impl ModelSource {
    /// The weights in `folder`, as it lies there now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(folder: Option<&Path>) -> Result<ModelSource> {
        let weights = folder.map(|folder| folder.join("model.safetensors")).filter(|file| file.is_file());
        let hash = |file: PathBuf| {
            let failed = |e| Error::run(format!("cannot read {}", file.display())).with_cause(e);
            disk::sha256_file(&file).map(|(_, sha256)| sha256).map_err(failed)
        };
        let from = folder.map(|folder| folder.display().to_string());
        Ok(ModelSource { from, sha256: weights.map(hash).transpose()? })
    }
}

/// A file that data came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSource {
    /// As the experiment names it, or a generator's name.
    pub path: String,
    /// Length.
    pub bytes: u64,
    /// sha256 of the bytes.
    pub sha256: String,
}

impl Receipt {
    /// Writes the file, durable and in one move.
    ///
    /// # Errors
    /// The path and the system's reason.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|cause| Error::run("cannot write the receipt as JSON").with_cause(cause))?;
        text.push('\n');
        disk::write_durably(path, text.as_bytes())
    }

    /// Reads the file.
    ///
    /// # Errors
    /// It is missing, or not a receipt.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = || format!("cannot read the receipt {}", path.display());
        let text = fs::read_to_string(path).map_err(|cause| Error::run(failed()).with_cause(cause))?;
        serde_json::from_str(&text).map_err(|cause| Error::run(failed()).with_cause(cause))
    }

    /// What differs from `earlier` and may change the result: a line each, as `plugins.0.sha256: "aa" is now "bb"`. The
    /// command line and the number of threads may differ freely. A resume that finds any is not exact.
    pub fn changes_since(&self, earlier: &Self) -> Vec<String> {
        let bare = |receipt: &Self| {
            let backend = BackendUse { threads: 0, ..receipt.backend.clone() };
            serde_json::to_value(Self { command: Vec::new(), backend, ..receipt.clone() }).unwrap_or_default()
        };
        let mut changes = Vec::new();
        compare("", &bare(earlier), &bare(self), &mut changes);
        changes
    }
}

/// Collects the leaves in which two JSON values differ.
fn compare(at: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(added) {
                let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&below(key), &value(a), &value(b), changes);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for index in 0..a.len().max(b.len()) {
                let value = |list: &[Value]| list.get(index).cloned().unwrap_or_default();
                compare(&below(&index.to_string()), &value(a), &value(b), changes);
            }
        }
        _ if old == new => {}
        _ => changes.push(format!("{at}: {old} is now {new}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            telos: Build::this(),
            command: vec!["telos".into(), "run".into()],
            seed: u64::MAX,
            backend: BackendUse { plugin: "candle".into(), device: "cpu".into(), dtype: "f32".into(), threads: 2 },
            plugins: vec![PluginUse {
                id: "ce".into(),
                kind: "objective".into(),
                version: "0.1.0".into(),
                abi: "1.0".into(),
                file: "libobjective_ce.so".into(),
                sha256: "aa".into(),
            }],
            model: ModelSource { from: None, sha256: None },
            roles: [("critic".to_owned(), ModelSource { from: Some("runs/a".into()), sha256: Some("bb".into()) })]
                .into(),
            tokenizer_sha256: "cc".into(),
            data: vec![DataSource { path: "corpus.txt".into(), bytes: 5, sha256: "dd".into() }],
            rows: None,
        }
    }

    /// Catches a field that is written and not read, and a seed that goes through a float.
    #[test]
    fn a_receipt_reads_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipt.json");
        receipt().write(&path).unwrap();
        assert_eq!(Receipt::read(&path).unwrap(), receipt());
        fs::write(&path, "{}").unwrap();
        assert!(Receipt::read(&path).unwrap_err().report().contains("receipt.json"));
    }

    /// Catches a build that does not say what built it.
    #[test]
    fn the_build_names_its_compiler_and_target() {
        let build = Build::this();
        assert!(build.rustc.starts_with("rustc 1."), "{build:?}");
        assert!(build.target.contains('-'), "{build:?}");
    }

    /// Catches a comparison that misses a changed, added or removed part, or minds what cannot change the result.
    #[test]
    fn changes_are_named_and_threads_and_command_line_are_free() {
        let (old, mut new) = (receipt(), receipt());
        new.command.push("--resume".into());
        new.backend.threads = 16;
        assert!(new.changes_since(&old).is_empty());
        new.plugins[0].sha256 = "bb".into();
        new.backend.dtype = "bf16".into();
        new.model.from = Some("runs/sft".into());
        new.data.clear();
        let changes = new.changes_since(&old).join("\n");
        for part in ["plugins.0.sha256: \"aa\" is now \"bb\"", "backend.dtype", "model.from: null", "data.0: {"] {
            assert!(changes.contains(part), "{part} is missing in\n{changes}");
        }
        assert_eq!(changes.lines().count(), 4, "{changes}");
    }
}
