//! Backends that ended the process of a comparison. A comparison runs in a child process. If a backend ends that process, the
//! comparison starts again in another one, which leaves the backend out and reports its failure.

use std::{env, process::Command};

use serde::{Deserialize, Serialize};

use super::backend_run::Failure;
use crate::runs::{
    Breadcrumb,
    breadcrumb::{self, CrashMarker},
    supervise,
};

/// The environment variable that passes the deaths to the next process: a JSON list of [`Death`].
const VARIABLE: &str = "TELOS_COMPARE_DEATHS";

/// A backend that ended an earlier process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Death {
    /// Its index among the compared backends.
    pub backend: usize,
    /// When and how.
    pub failure: Failure,
}

impl Death {
    /// The death that ended a worker, if a backend ended it.
    pub fn of(ended: &supervise::Ended) -> Option<Death> {
        let supervise::Death { part, step, message } = ended.death()?;
        Some(Death { backend: usize::try_from(part - 1).ok()?, failure: Failure { step, message } })
    }
}

/// The deaths before this process was started.
pub fn earlier() -> Vec<Death> {
    env::var(VARIABLE).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Passes the deaths to the process that `command` starts.
pub fn pass(deaths: &[Death], command: &mut Command) {
    command.env(VARIABLE, serde_json::to_string(deaths).unwrap_or_default());
}

/// Marks the work of one backend, so that a death is attributed to it.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Its index among the compared backends; `None`: it is not one of them.
    pub backend: Option<usize>,
    /// Id of the plugin.
    pub plugin: String,
}

impl Mark {
    /// Marks that the backend works from here on, in `step` (counted from 1; 0 before the first one). Returns the marker for its calls.
    pub fn begin(&self, step: u64) -> CrashMarker {
        breadcrumb::part(self.backend.map_or(0, |index| index as u64 + 1));
        let marker = CrashMarker::new(Breadcrumb::from_env(), &self.plugin);
        marker.step(step);
        marker.host();
        marker
    }
}
