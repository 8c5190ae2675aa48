//! Simulates a disk that stops before a chosen step, as if the process were killed, the power failed, or the disk
//! were full.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

/// How the disk stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The process is dead: no step is done any more. What was written is there.
    Killed,
    /// The process is dead, and files that were never synced are empty.
    PowerCut,
    /// Only that one step fails; the process lives and may clean up.
    Full,
    /// Nothing fails, but from that step on the weights of step 20 differ from what was written.
    BadDisk,
}

/// Counts steps and stops before one of them.
#[derive(Debug)]
pub(crate) struct Faults {
    stop: Stop,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    left: usize,
    stopped: bool,
    synced: BTreeSet<u64>,
    log: Vec<String>,
}

impl Faults {
    pub(crate) fn after(left: usize, stop: Stop) -> Self {
        let inner = Inner { left, stopped: false, synced: BTreeSet::new(), log: Vec::new() };
        Self { stop, inner: Mutex::new(inner) }
    }

    /// Lets `left` more steps pass.
    pub(crate) fn arm(&self, left: usize) {
        let mut inner = self.inner.lock().unwrap();
        (inner.left, inner.stopped) = (left, false);
        inner.log.clear();
    }

    pub(crate) fn step(&self, what: &str, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap();
        if inner.stopped && !matches!(self.stop, Stop::Full | Stop::BadDisk) {
            return Err(io::Error::other("the process is dead"));
        }
        if inner.left == 0 && !inner.stopped {
            inner.stopped = true;
            if self.stop == Stop::BadDisk {
                return fs::write(path.join("step-00000020/model.safetensors"), "rot");
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.left = inner.left.saturating_sub(1);
        let name = path.file_name().unwrap().to_string_lossy().replace(&format!("-{}", std::process::id()), "");
        inner.log.push(format!("{what} {name}"));
        Ok(())
    }

    pub(crate) fn synced(&self, file: &File) -> io::Result<()> {
        self.inner.lock().unwrap().synced.insert(file.metadata()?.ino());
        Ok(())
    }

    /// Whether the chosen step was reached.
    pub(crate) fn stopped(&self) -> bool {
        self.inner.lock().unwrap().stopped
    }

    /// The steps done since the last [`Self::arm`].
    pub(crate) fn log(&self) -> Vec<String> {
        self.inner.lock().unwrap().log.clone()
    }

    /// What a power cut leaves: files below `folder` that were never synced lose their content.
    pub(crate) fn cut_power(&self, folder: &Path) {
        if self.stop != Stop::PowerCut {
            return;
        }
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::metadata(&path).unwrap();
            if meta.is_dir() {
                self.cut_power(&path);
            } else if !self.inner.lock().unwrap().synced.contains(&meta.ino()) {
                fs::write(&path, "").unwrap();
            }
        }
    }
}
