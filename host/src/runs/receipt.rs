//! `receipt.json`: everything that made the result, so that a run is never a mystery.
//!
//! It holds no time of day and no folder of this machine beyond what the user wrote: two equal runs have equal receipts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::disk;
use crate::data::rows::RowCounts;
use crate::error::{Error, Result};

/// Version of the rules by which rows become tokens, answers end, epochs are counted and evaluations are cut into batches. It
/// grows whenever the same experiment would give other bits, so that no run is half of one and half of another.
pub const RULES: u32 = 2;

/// What made a run's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The host.
    pub telos: Build,
    /// [`RULES`] of the program that began the run; 0 of programs from before there was such a number.
    #[serde(default)]
    pub rules: u32,
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
    /// Plugins whose bytes are not those pinned in plugins.lock (`--dev`), a line each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unpinned: Vec<String>,
    /// What was replaced on the way; empty where the whole run was made by the above.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub replaced: Vec<Replaced>,
    /// Keys of the experiment that were changed on resuming, such as its length: a line each, as in [`Changes`].
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub changed: Vec<Replaced>,
    /// How objectives contradicted the quick laws on the first batch, where the run was told to train all the same.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unproved: Vec<String>,
}

/// What was changed when a run was resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The last step before that.
    pub after_step: u64,
    /// What differs, a line each, as in [`Changes`].
    pub changes: Vec<String>,
}

/// What differs between two receipts and may change the result: a line each, as `plugins[ce].sha256: "aa" is now "bb"`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Of programs: the host, plugins and what the backend was told.
    pub programs: Vec<String>,
    /// Of all else: what was learned from.
    pub inputs: Vec<String>,
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
    /// The instruction set that computes, as the backend names it; absent where there is only one, and in older receipts. Another
    /// one gives other last bits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instruction_set: Option<String>,
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
    /// sha256 of the weights' file; of several, that of `sha256sum`'s lines about them, sorted by name. Absent as above.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
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

    /// What differs from `earlier`. The command line and the number of threads may differ freely. A resume that finds any is not
    /// exact.
    pub fn changes_since(&self, earlier: &Self) -> Changes {
        let (mut changes, mut lines) = (Changes::default(), Vec::new());
        // An older receipt does not say which instruction set computed.
        let known = earlier.backend.instruction_set.is_some();
        compare("", &earlier.comparable(known), &self.comparable(known), &mut lines);
        for line in lines {
            let program = ["telos.", "plugins[", "backend."].iter().any(|start| line.starts_with(start));
            if program { changes.programs.push(line) } else { changes.inputs.push(line) }
        }
        changes
    }

    fn comparable(&self, with_instruction_set: bool) -> Value {
        let mut backend = BackendUse { threads: 0, ..self.backend.clone() };
        backend.instruction_set.take_if(|_| !with_instruction_set);
        let (command, replaced, changed, unpinned, unproved) = Default::default();
        let rows = self.rows.clone().map(RowCounts::without_notes);
        serde_json::to_value(Self { command, replaced, changed, unpinned, unproved, backend, rows, ..self.clone() })
            .unwrap_or_default()
    }
}

/// Collects the leaves in which two JSON values differ.
fn compare(at: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(added) {
                let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&below(key), &value(a), &value(b), lines);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for index in 0..a.len().max(b.len()) {
                let name = a.get(index).or(b.get(index)).and_then(name).map_or(index.to_string(), str::to_owned);
                let value = |list: &[Value]| list.get(index).cloned().unwrap_or_default();
                compare(&format!("{at}[{name}]"), &value(a), &value(b), lines);
            }
        }
        _ if old == new => {}
        _ => lines.push(format!("{at}: {old} is now {new}")),
    }
}

/// What a plugin or a file is called.
fn name(entry: &Value) -> Option<&str> {
    entry.get("id").or(entry.get("path"))?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            telos: Build::this(),
            rules: RULES,
            command: vec!["telos".into(), "run".into()],
            seed: u64::MAX,
            backend: BackendUse {
                plugin: "candle".into(),
                device: "cpu".into(),
                dtype: "f32".into(),
                threads: 2,
                instruction_set: Some("avx2".into()),
            },
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
            unpinned: Vec::new(),
            replaced: Vec::new(),
            changed: Vec::new(),
            unproved: Vec::new(),
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
        new.replaced.push(Replaced { after_step: 3, changes: Vec::new() });
        new.unpinned.push("objective ce: pinned sha256 aa, used bb".into());
        assert_eq!(new.changes_since(&old), Changes::default());
        let older = Receipt { backend: BackendUse { instruction_set: None, ..old.backend.clone() }, ..receipt() };
        assert_eq!(new.changes_since(&older), Changes::default(), "an older receipt does not say which it was");
        new.backend.instruction_set = Some("avx512".into());
        assert_eq!(new.changes_since(&old).programs, [r#"backend.instruction_set: "avx2" is now "avx512""#]);
        new.backend.instruction_set = old.backend.instruction_set.clone();
        new.plugins[0].sha256 = "bb".into();
        new.backend.dtype = "bf16".into();
        new.model.from = Some("runs/sft".into());
        new.data[0].sha256 = "ee".into();
        new.data.push(DataSource { path: "more.txt".into(), bytes: 1, sha256: "ff".into() });
        let Changes { programs, inputs } = new.changes_since(&old);
        let expected = [r#"backend.dtype: "f32" is now "bf16""#, r#"plugins[ce].sha256: "aa" is now "bb""#];
        assert_eq!(programs, expected);
        let expected = [
            r#"model.from: null is now "runs/sft""#,
            r#"data[corpus.txt].sha256: "dd" is now "ee""#,
            "data[more.txt]: null is now {",
        ];
        for part in expected {
            assert!(inputs.iter().any(|line| line.starts_with(part)), "{part} is missing in {inputs:?}");
        }
        assert_eq!(inputs.len(), expected.len(), "{inputs:?}");
    }
}
