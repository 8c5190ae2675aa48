//! Whether a run is in progress, and how it ended.

use std::fmt;
use std::path::Path;

use crate::runs::end::{Ending, RunEnd};
use crate::runs::file_lock;

/// The state of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// A process writes it.
    Running,
    /// It ended and recorded how.
    Ended(RunEnd),
    /// All its steps are done, and it did not record how it ended, as in earlier versions.
    Complete,
    /// No process writes it, and it did not record how it ended: it was killed together with its supervising process, or the machine
    /// stopped.
    Lost,
}

impl State {
    /// Reads the state of the run in `folder`, which has done `step` of `total` steps.
    pub fn read(folder: &Path, step: u64, total: Option<u64>) -> State {
        if let Ok(Some(end)) = RunEnd::read(folder) {
            return State::Ended(end);
        }
        match file_lock::is_held(&folder.join(".lock")) {
            true => State::Running,
            false if total.is_some_and(|total| step >= total) => State::Complete,
            false => State::Lost,
        }
    }

    /// Its name in a table.
    pub fn word(&self) -> &'static str {
        match self {
            State::Running => "running",
            State::Complete => "done",
            State::Lost => "lost",
            State::Ended(end) => match end.ending {
                Ending::Done => "done",
                Ending::Early => "stopped early",
                Ending::Interrupted => "interrupted",
                Ending::Paused => "paused",
                Ending::Failed => "failed",
                Ending::Crashed => "crashed",
            },
        }
    }

    /// Why it ended, if that was before its last step; the first line is the error's message, or what stopped it.
    pub fn why(&self) -> Vec<String> {
        match self {
            State::Lost => vec![
                "no process writes this run, and it did not record how it ended: it was killed from outside, or the machine \
                 stopped; continue it with --resume"
                    .to_owned(),
            ],
            State::Ended(end) => end.reason.iter().chain(&end.error).cloned().collect(),
            State::Running | State::Complete => Vec::new(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::file_lock::FileLock;
    use std::time::Duration;

    /// Catches a run that is called running after its process died, and a running one that is called lost.
    #[test]
    fn a_run_is_running_exactly_while_its_lock_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let state = |step, total| State::read(folder.path(), step, total);
        assert_eq!(state(3, Some(8)), State::Lost);
        assert_eq!(state(8, Some(8)), State::Complete);
        let lock = FileLock::take(&folder.path().join(".lock"), Duration::ZERO).unwrap();
        assert_eq!(state(3, Some(8)), State::Running);
        drop(lock);
        assert_eq!(state(3, Some(8)), State::Lost);
        let end = RunEnd::now(Ending::Early, 5);
        end.write(folder.path()).unwrap();
        assert_eq!(state(5, Some(8)), State::Ended(end));
    }
}
