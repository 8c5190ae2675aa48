//! How a run ended: `end.json` in its folder. It is removed when the run starts or resumes, so a run without it is in progress, was
//! killed, or was made by an earlier version.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::disk::{read_json, shown, write_json};
use crate::error::{Error, Kind, Result};

/// Name of the file.
pub const END_FILE: &str = "end.json";

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// All steps are done, or the data ended.
    Done,
    /// Early stopping, an alert or an objective stopped it.
    Early,
    /// The user interrupted it.
    Interrupted,
    /// It was to pause after this step (`--pause-after`).
    Paused,
    /// An error.
    Failed,
    /// The process was killed or exited in the middle of its work.
    Crashed,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    /// Why.
    pub ending: Ending,
    /// Steps done.
    pub step: u64,
    /// Seconds since 1970.
    pub at: u64,
    /// What stopped a run before its last step; absent if that is not known, and for all other ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The error's message, details and remedy; empty without an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub error: Vec<String>,
}

impl RunEnd {
    /// An end now, after `step`.
    pub fn now(ending: Ending, step: u64) -> RunEnd {
        RunEnd { ending, step, at: seconds_since_1970(), reason: None, error: Vec::new() }
    }

    /// The end that `error` caused.
    pub fn of(error: &Error, otherwise: Ending, step: u64) -> RunEnd {
        let ending = if error.kind() == Kind::Interrupted { Ending::Interrupted } else { otherwise };
        let lines = error.report().lines().map(str::to_owned).collect();
        RunEnd { error: lines, ..RunEnd::now(ending, step) }
    }

    /// Writes it to the run in `folder`.
    ///
    /// # Errors
    /// The path and the system's error.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(END_FILE), self)
    }

    /// Reads it from the run in `folder`; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn read(folder: &Path) -> Result<Option<RunEnd>> {
        read_json(&folder.join(END_FILE))
    }

    /// Removes it from the run in `folder`, which starts.
    ///
    /// # Errors
    /// The path and the system's error.
    pub fn remove(folder: &Path) -> Result<()> {
        let path = folder.join(END_FILE);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(Error::run(format!("cannot remove {}", shown(&path).display())).with_cause(cause))
            }
            _ => Ok(()),
        }
    }
}

/// The system's clock; 0 if it is set to before 1970.
pub fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an end that loses its remedy, and one that is left over from before a resume.
    #[test]
    fn an_end_is_read_as_written_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(RunEnd::read(folder.path()).unwrap(), None);
        let error = Error::run("the data is gone").with_hint("bring it back");
        let end = RunEnd::of(&error, Ending::Failed, 7);
        end.write(folder.path()).unwrap();
        let read = RunEnd::read(folder.path()).unwrap().unwrap();
        assert_eq!(read, end);
        assert!(read.error.iter().any(|line| line.contains("bring it back")), "{read:?}");
        RunEnd::remove(folder.path()).unwrap();
        RunEnd::remove(folder.path()).unwrap();
        assert_eq!(RunEnd::read(folder.path()).unwrap(), None);
    }

    /// Catches an interruption that is reported as a failure.
    #[test]
    fn an_interruption_is_not_a_failure() {
        let end = RunEnd::of(&Error::interrupted("stopped"), Ending::Failed, 3);
        assert_eq!((end.ending, end.step), (Ending::Interrupted, 3));
    }
}
