//! `receipt.json`: everything that the result depends on.
//!
//! It contains no time of day and no folder of this machine except what the user wrote: two equal runs have equal
//! receipts.

pub mod changes;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk;
use crate::data::hub;
use crate::data::rows::RowCounts;
use crate::error::{Error, Result};
use crate::files;

/// Version of the rules by which rows become tokens, answers end, epochs are counted and evaluations are cut into
/// batches. It is increased whenever the same experiment would give different bits, so that no run mixes two
/// versions.
pub const RULES: u32 = 3;

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
    /// The commits of models and data of the Hugging Face hub, by their names in the experiment or, for
    /// the base of an adapter, in the adapter's files. A resumed run reads the same commits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub hub: BTreeMap<String, String>,
    /// How many rows were used, dropped and truncated; absent for running text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rows: Option<RowCounts>,
    /// Plugins whose bytes differ from those pinned in plugins.lock (`--dev`), one line each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unpinned: Vec<String>,
    /// What was replaced during the run; empty if the whole run used what is listed above.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub replaced: Vec<Replaced>,
    /// Keys of the experiment that were changed on resuming, such as its length: one line each, as in [`changes::Changes`].
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
    /// What differs, one line each, as in [`changes::Changes`].
    pub changes: Vec<String>,
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

/// Lets this process read the commits of the hub that the run in `folder` began with. Does nothing without a readable receipt, which
/// is reported when the run is resumed.
pub fn pin_commits(folder: &Path) {
    if let Ok(receipt) = Receipt::read(&folder.join("receipt.json")) {
        hub::pin(&receipt.hub);
    }
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
    /// Compute type.
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
    /// As `sha256`, of the weights under it, for a role that is an adapter. Absent for other models and in older receipts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base_sha256: Option<String>,
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
    /// Returns the model that the run began with at this key of the experiment; `None` if the key names none.
    pub fn model_of(&self, key: &str) -> Option<&ModelSource> {
        let mut words = key.split('.');
        match (words.next()?, words.next()) {
            ("model", Some("adapter")) => self.roles.get("adapter"),
            ("model", Some("from")) => Some(&self.model),
            ("reward", index) => {
                let index: usize = index.and_then(|word| word.parse().ok()).unwrap_or(0);
                self.roles.get(&format!("reward.{index}")).filter(|_| key.ends_with("model"))
            }
            (role, Some("from")) => self.roles.get(role),
            _ => None,
        }
    }

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
        let damaged = match text.trim().is_empty() {
            true => Error::run(format!("the receipt {} is empty", path.display())),
            false => match serde_json::from_str(&text) {
                Ok(receipt) => return Ok(receipt),
                Err(cause) => Error::run(format!("the receipt {} is damaged", path.display())).with_cause(cause),
            },
        };
        Err(damaged.with_hint(
            "restore the file from a copy; without one, delete it: the run can then be resumed, but whether its data, weights and \
             programs are those that it began with is not checked",
        ))
    }
}

#[cfg(test)]
mod tests;
