//! The folder through which parent and child exchange files.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// Number of lines of a dead child's output that are shown.
const LAST_LINES: usize = 3;

/// The folder through which parent and child exchange files.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// The job.
    pub const JOB: &str = "job.json";
    /// The answer; exists once the work is done.
    pub const ANSWER: &str = "answer.json";
    /// What the child was doing last.
    const REACHED: &str = "reached";
    /// Its standard output and error.
    pub(super) const OUTPUT: &str = "output";

    /// Reads a file of the folder.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let path = self.0.join(name);
        let failed = || Error::run(format!("cannot read {}", path.display()));
        let text = fs::read(&path).map_err(|cause| failed().with_cause(cause))?;
        serde_json::from_slice(&text).map_err(|cause| failed().with_cause(cause))
    }

    /// Writes a file of the folder, in one step.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let (path, fresh) = (self.0.join(name), self.0.join("fresh"));
        let failed = || Error::run(format!("cannot write {}", path.display()));
        let text = serde_json::to_vec(value).map_err(|cause| failed().with_cause(cause))?;
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).map_err(|cause| failed().with_cause(cause))
    }

    /// Records what is about to be done. If that fails, a crash is reported with less detail.
    pub fn reached(&self, what: &str) {
        _ = fs::write(self.0.join(Self::REACHED), what);
    }

    /// What the child was about to do last.
    pub fn last_reached(&self) -> Option<String> {
        fs::read_to_string(self.0.join(Self::REACHED)).ok().filter(|text| !text.is_empty())
    }

    /// The last lines that the child printed.
    pub(super) fn last_output(&self) -> Vec<String> {
        let tail = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.0.join(Self::OUTPUT))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
            let mut bytes = Vec::new();
            file.take(4096).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let text = String::from_utf8_lossy(&tail().unwrap_or_default()).into_owned();
        let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
    }
}
