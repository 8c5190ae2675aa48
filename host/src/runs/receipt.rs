//! `receipt.json`: everything that the result depends on.
//!
//! It contains no time of day and no folder of this machine except what the user wrote: two equal runs have equal
//! receipts.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::disk;
use crate::data::rows::RowCounts;
use crate::error::{Error, Result};
use crate::files;

/// Version of the rules by which rows become tokens, answers end, epochs are counted and evaluations are cut into
/// batches. It is increased whenever the same experiment would give different bits, so that no run mixes two
/// versions.
pub const RULES: u32 = 2;

/// Everything that a run's result depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The host.
    pub telos: Build,
    /// [`RULES`] of the program that began the run; 0 for programs older than this number.
    #[serde(default)]
    pub rules: u32,
    /// The command line, beginning with the program.
    pub command: Vec<String>,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The backend.
    pub backend: BackendUse,
    /// Every plugin that was loaded, in the order of loading.
    pub plugins: Vec<PluginUse>,
    /// Where the weights came from.
    pub model: ModelSource,
    /// The models besides it that are read from elsewhere: `reference`, `critic`, and `reward.N` by position.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub roles: BTreeMap<String, ModelSource>,
    /// sha256 of the tokenizer's definition.
    pub tokenizer_sha256: String,
    /// The files that the tokenizer was read from, including chat templates; absent in older receipts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokenizer_files: Option<Vec<DataSource>>,
    /// Every file that data came from, in the order of reading.
    pub data: Vec<DataSource>,
    /// How many rows were used, dropped and truncated; absent for running text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rows: Option<RowCounts>,
    /// Plugins whose bytes differ from those pinned in plugins.lock (`--dev`), one line each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unpinned: Vec<String>,
    /// What was replaced during the run; empty if the whole run used what is listed above.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub replaced: Vec<Replaced>,
    /// Keys of the experiment that were changed on resuming, such as its length: one line each, as in [`Changes`].
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub changed: Vec<Replaced>,
    /// How objectives violated the quick laws on the first batch, if the run trained all the same as requested.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unproved: Vec<String>,
}

/// What was changed when a run was resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replaced {
    /// The last step before the change.
    pub after_step: u64,
    /// What differs, one line each, as in [`Changes`].
    pub changes: Vec<String>,
}

/// What differs between two receipts and may change the result: one line each, such as `plugins[ce].sha256: "aa" is
/// now "bb"`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Of programs: the host, the plugins and the backend's settings.
    pub programs: Vec<String>,
    /// Of everything else: the inputs.
    pub inputs: Vec<String>,
}

/// How the host was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Its version.
    pub version: String,
    /// The compiler.
    pub rustc: String,
    /// The target it was built for.
    pub target: String,
}

impl Build {
    /// The build of this program.
    pub fn this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rustc: env!("TELOS_RUSTC").to_owned(),
            target: env!("TELOS_TARGET").to_owned(),
        }
    }
}

/// The backend and its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendUse {
    /// Id of the plugin.
    pub plugin: String,
    /// Device, as the backend names it.
    pub device: String,
    /// Type of the computation.
    pub dtype: String,
    /// Threads.
    pub threads: usize,
    /// Whether another number of threads may change the last bits: true unless the backend promises that it does
    /// not. Absent in older receipts.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub threads_matter: bool,
    /// The instruction set in use, as the backend names it; absent if there is only one, and in older receipts.
    /// Another one changes the last bits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instruction_set: Option<String>,
}

/// A plugin as it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginUse {
    /// Its id.
    pub id: String,
    /// Its kind: objective, backend, reward.
    pub kind: String,
    /// Its own version.
    pub version: String,
    /// The contract version it was built with, as major.minor.
    pub abi: String,
    /// Name of the file, without its folder.
    pub file: String,
    /// sha256 of the file.
    pub sha256: String,
    /// The libraries that it loaded; absent in older receipts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub libraries: Option<Vec<LibraryUse>>,
}

/// A library that a plugin loads: from the plugin's own folder, or from outside the system's folders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibraryUse {
    /// Name of the file, without its folder.
    pub name: String,
    /// sha256 of the file.
    pub sha256: String,
}

/// Where the weights came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSource {
    /// As in the experiment; absent if the model began with random weights.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// sha256 of the weights' file; if there are several, that of the lines of `sha256sum` for them, sorted by
    /// name. Absent as above.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
    /// The files that were read besides the weights, by their path in the folder: shape, ends of answers and, for a
    /// role, its tokenizer. Absent in older receipts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub files: Option<Vec<DataSource>>,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    /// As in the experiment, or the name of a generator.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// sha256 of the bytes.
    pub sha256: String,
}

impl Receipt {
    /// Writes the file durably, by one rename.
    ///
    /// # Errors
    /// The path and the system's error.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|cause| Error::run("cannot write the receipt as JSON").with_cause(cause))?;
        text.push('\n');
        disk::write_durably(path, text.as_bytes())
    }

    /// Reads the file.
    ///
    /// # Errors
    /// It is missing, or is not a receipt.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = || format!("cannot read the receipt {}", path.display());
        let text = files::read_to_string(path).map_err(|cause| Error::run(failed()).with_cause(cause))?;
        serde_json::from_str(&text).map_err(|cause| Error::run(failed()).with_cause(cause))
    }

    /// Returns what differs from `earlier`. The command line may differ. What an older receipt does not record is
    /// not compared. A resume with any such difference is not exact.
    pub fn changes_since(&self, earlier: &Self) -> Changes {
        let (mut changes, mut lines) = (Changes::default(), Vec::new());
        let mut now = self.clone();
        // The same weights at another path are the same model.
        let roles = now.roles.iter_mut().filter_map(|(role, own)| Some((own, earlier.roles.get(role)?)));
        for (own, then) in roles.chain([(&mut now.model, &earlier.model)]) {
            if own.sha256.is_some() && own.sha256 == then.sha256 {
                own.from.clone_from(&then.from);
            }
        }
        compare("", &earlier.comparable(earlier), &now.comparable(earlier), &mut lines);
        for line in lines {
            let program = ["telos.", "plugins[", "backend."].iter().any(|start| line.starts_with(start));
            if program { changes.programs.push(line) } else { changes.inputs.push(line) }
        }
        changes
    }

    /// The part of this receipt that is compared, either with `earlier` or as `earlier`: without what that one does
    /// not record.
    fn comparable(&self, earlier: &Self) -> Value {
        fn only_if<T, U>(known: Option<&U>, value: &mut Option<T>) {
            value.take_if(|_| known.is_none());
        }
        let mut own = self.clone();
        own.rows = own.rows.map(RowCounts::without_notes);
        (own.command, own.replaced, own.changed, own.unpinned, own.unproved) = Default::default();
        only_if(earlier.backend.instruction_set.as_ref(), &mut own.backend.instruction_set);
        if !(self.backend.threads_matter && earlier.backend.threads_matter) {
            (own.backend.threads, own.backend.threads_matter) = Default::default();
        }
        for plugin in &mut own.plugins {
            let then = earlier.plugins.iter().find(|then| (&then.kind, &then.id) == (&plugin.kind, &plugin.id));
            only_if(then.and_then(|then| then.libraries.as_ref()), &mut plugin.libraries);
        }
        only_if(earlier.tokenizer_files.as_ref(), &mut own.tokenizer_files);
        only_if(earlier.model.files.as_ref(), &mut own.model.files);
        for (role, source) in &mut own.roles {
            only_if(earlier.roles.get(role).and_then(|then| then.files.as_ref()), &mut source.files);
        }
        serde_json::to_value(own).unwrap_or_default()
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
        (Value::Array(a), Value::Array(b)) if let (Some(a), Some(b)) = (by_name(a), by_name(b)) => {
            for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                let value = |map: &BTreeMap<&str, &Value>| map.get(name).map_or(Value::Null, |value| (*value).clone());
                compare(&format!("{at}[{name}]"), &value(&a), &value(&b), lines);
            }
            let order = |list: &BTreeMap<&str, &Value>, of: &Value| -> Vec<String> {
                let names = of.as_array().into_iter().flatten().filter_map(name);
                names.filter(|name| list.contains_key(name)).map(str::to_owned).collect()
            };
            let (then, now) = (order(&b, old), order(&a, new));
            if then != now {
                lines.push(format!("{at}: the order {} is now {}", then.join(", "), now.join(", ")));
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

/// The entries by name; `None` if one has no name, or two have the same.
fn by_name(list: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let named: BTreeMap<&str, &Value> = list.iter().filter_map(|entry| Some((name(entry)?, entry))).collect();
    (named.len() == list.len()).then_some(named)
}

/// The name of a plugin, a file or a library.
fn name(entry: &Value) -> Option<&str> {
    entry.get("id").or(entry.get("path")).or(entry.get("name"))?.as_str()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(path: &str, sha256: &str) -> DataSource {
        DataSource { path: path.into(), bytes: 5, sha256: sha256.into() }
    }

    fn receipt() -> Receipt {
        let files = Some(vec![file("config.json", "44")]);
        let critic = ModelSource { from: Some("runs/a".into()), sha256: Some("bb".into()), files };
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
                threads_matter: false,
                instruction_set: Some("avx2".into()),
            },
            plugins: vec![PluginUse {
                id: "ce".into(),
                kind: "objective".into(),
                version: "0.1.0".into(),
                abi: "1.0".into(),
                file: "libobjective_ce.so".into(),
                sha256: "aa".into(),
                libraries: Some(vec![LibraryUse { name: "libx.so".into(), sha256: "11".into() }]),
            }],
            model: ModelSource { from: None, sha256: None, files: Some(vec![file("config.json", "22")]) },
            roles: [("critic".to_owned(), critic)].into(),
            tokenizer_sha256: "cc".into(),
            tokenizer_files: Some(vec![file("tokenizer.json", "33")]),
            data: vec![file("corpus.txt", "dd")],
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
        // Otherwise a key that a flipped bit has changed would count as absent.
        let text = serde_json::to_string(&receipt()).unwrap();
        for (key, flipped) in [
            ("\"libraries\"", "\"librabies\""),
            ("\"files\"", "\"gfles\""),
            ("\"tokenizer_files\"", "\"tokenizer_fhles\""),
        ] {
            assert!(text.contains(key), "{key}: {text}");
            fs::write(&path, text.replace(key, flipped)).unwrap();
            assert!(Receipt::read(&path).unwrap_err().report().contains("unknown field"), "{key}");
        }
    }

    /// Catches a build that does not record its compiler and target.
    #[test]
    fn the_build_names_its_compiler_and_target() {
        let build = Build::this();
        assert!(build.rustc.starts_with("rustc 1."), "{build:?}");
        assert!(build.target.contains('-'), "{build:?}");
    }

    /// Catches a comparison that misses a changed, added or removed part, or reports what cannot change the result.
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
        new.data.insert(0, file("more.txt", "ff"));
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
        (new.data, new.model.from) = (vec![file("a", "1"), file("b", "2")], old.model.from.clone());
        let mut turned = new.clone();
        turned.data.reverse();
        assert_eq!(turned.changes_since(&new).inputs, ["data: the order a, b is now b, a"]);
    }

    /// Catches another library, shape, template or number of threads that is not reported, and an older receipt,
    /// which does not record them, that is read as one that records none.
    #[test]
    fn what_an_older_receipt_does_not_say_is_not_compared() {
        let (old, mut new) = (receipt(), receipt());
        new.plugins[0].libraries = Some(vec![LibraryUse { name: "libx.so".into(), sha256: "12".into() }]);
        new.model.files = Some(vec![file("config.json", "22"), file("generation_config.json", "23")]);
        new.roles.get_mut("critic").unwrap().files = Some(vec![file("config.json", "45")]);
        new.tokenizer_files = Some(vec![file("chat_template.jinja", "34"), file("tokenizer.json", "33")]);
        let Changes { programs, inputs } = new.changes_since(&old);
        assert_eq!(programs, [r#"plugins[ce].libraries[libx.so].sha256: "11" is now "12""#]);
        let expected = [
            "model.files[generation_config.json]: null is now {",
            r#"roles.critic.files[config.json].sha256: "44" is now "45""#,
            "tokenizer_files[chat_template.jinja]: null is now {",
        ];
        assert_eq!(inputs.len(), expected.len(), "{inputs:?}");
        for part in expected {
            assert!(inputs.iter().any(|line| line.starts_with(part)), "{part} is missing in {inputs:?}");
        }
        let mut older = receipt();
        older.plugins[0].libraries = None;
        (older.model.files, older.tokenizer_files) = (None, None);
        older.roles.get_mut("critic").unwrap().files = None;
        assert_eq!(new.changes_since(&older), Changes::default());
        let matters = |threads| {
            let mut receipt = receipt();
            (receipt.backend.threads, receipt.backend.threads_matter) = (threads, true);
            receipt
        };
        assert_eq!(matters(3).changes_since(&matters(2)).programs, ["backend.threads: 2 is now 3"]);
        assert_eq!(matters(3).changes_since(&old), Changes::default());
    }
}
