//! A backend's description of itself.

use super::option::OptionSpec;
use serde::{Deserialize, Serialize};

/// A device that a backend can name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// `cpu`, `cuda`, `metal`.
    pub name: String,
    /// Whether this library was compiled with it.
    pub compiled: bool,
    /// Whether the conformance suite has been run on it by the backend's developers.
    pub tested: bool,
    /// A note for users.
    #[serde(default)]
    pub note: String,
    /// The instruction set that computes on this machine, such as `avx2`, if another one gives other last bits; empty if there is
    /// only one. It is recorded in receipts and decides which cached numbers are reused. If the backend has an option `isa` and it
    /// is not `auto`, the option's value is used instead.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instruction_set: String,
    /// Whether every number of threads gives the same bits. Without this promise a run's receipt records the number, and a run
    /// that is resumed with another one reports it.
    #[serde(default)]
    pub same_with_any_threads: bool,
}

/// A backend's description of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendManifest {
    /// Its name in experiment files.
    pub id: String,
    /// Its own version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// The backend's devices, compiled in or not.
    pub devices: Vec<DeviceSpec>,
    /// Compute dtypes it offers.
    pub dtypes: Vec<String>,
    /// Options.
    pub options: Vec<OptionSpec>,
}
