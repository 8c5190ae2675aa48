//! The plan of a study: `study.json` in its folder. It names the stages and runs, whose folders say how far they are.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::disk::{read_json, write_json};
use super::folder::STUDY_FILE;
use crate::error::{Error, Result};

/// A study's plan, and what failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyFile {
    /// Its name.
    pub name: String,
    /// How combinations were chosen: grid, list, random, latin-hypercube.
    pub method: String,
    /// The metric by which arms are compared, after min: or max:.
    pub metric: String,
    /// The keys that differ between arms.
    pub keys: Vec<String>,
    /// Stages that are run once, before the runs.
    pub stages: Vec<String>,
    /// Successive halving, if arms are stopped early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halving: Option<Rungs>,
    /// The arms in order.
    pub arms: Vec<ArmPlan>,
    /// Why stages and runs failed, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, String>,
}

/// Successive halving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rungs {
    /// Steps of each rung; the last is that of a whole run.
    pub steps: Vec<u64>,
    /// The best 1/factor of a rung continue.
    pub factor: u64,
    /// What decides, after min: or max:.
    pub metric: String,
}

/// An arm: one combination of values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmPlan {
    /// Its name.
    pub name: String,
    /// The keys that it sets, with their values.
    pub values: Map<String, Value>,
    /// Its runs.
    pub runs: Vec<RunPlan>,
}

/// A run of an arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlan {
    /// Its name, and that of its folder.
    pub name: String,
    /// Its seed; `None` for the experiment's own.
    pub seed: Option<i64>,
}

impl StudyFile {
    /// Reads the plan of the study in `folder`; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn read(folder: &Path) -> Result<Option<StudyFile>> {
        read_json(&folder.join(STUDY_FILE)).map_err(|error: Error| error.with_hint("restore the file from a copy"))
    }

    /// Writes it to the study in `folder`.
    ///
    /// # Errors
    /// The path and the system's error.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(STUDY_FILE), self)
    }

    /// Its runs in order.
    pub fn runs(&self) -> impl Iterator<Item = &RunPlan> {
        self.arms.iter().flat_map(|arm| &arm.runs)
    }

    /// Whether `folder` is that of a study.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(STUDY_FILE).is_file()
    }
}
