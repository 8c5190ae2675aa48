//! Backends that ended the process of a comparison. A comparison runs in a child process. If a backend ends that process, the
//! comparison starts again in another one, without the work in which the backend did so.

pub mod mark;

use std::{env, process::Command};

use serde::{Deserialize, Serialize};

use super::{backend_run::Failure, replay::REFERENCE, spec::Spec};
use crate::runs::supervise;
use mark::{Work, of_part};

/// The environment variable that passes the deaths to the next process: a JSON list of [`Death`].
const VARIABLE: &str = "TELOS_COMPARE_DEATHS";

/// How a backend ended an earlier process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Death {
    /// Its index among the compared backends; `None`: it is that of the yardstick alone.
    pub backend: Option<usize>,
    /// What it did.
    pub work: Work,
    /// When and how.
    pub failure: Failure,
}

impl Death {
    /// The death that ended a worker, if the plugin of a backend ended it: one of `backends`, or that of the yardstick. The end of
    /// an objective concerns all backends, and is none of theirs. Outside any plugin only SIGKILL counts: the system sends it when
    /// memory runs out, most of which the backend holds; other deaths there are mistakes of the host.
    pub fn of(ended: &supervise::Ended, backends: &[Spec], yardstick: Option<&Spec>) -> Option<Death> {
        let supervise::Death { part, plugin, step, message, killed } = ended.death()?;
        let (backend, work) = of_part(part)?;
        let spec = backend.map_or(yardstick, |index| backends.get(index))?;
        let known = [spec.plugin(), REFERENCE];
        // The reference works only in a replay.
        let own = if work == Work::Replay { &known[..] } else { &known[..1] };
        let is_own = (killed && plugin.is_empty()) || own.contains(&plugin.as_str());
        is_own.then_some(Death { backend, work, failure: Failure { step, message } })
    }

    /// Whether it is the death of this backend in this work.
    pub fn is(&self, backend: Option<usize>, work: Work) -> bool {
        (self.backend, self.work) == (backend, work)
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
