//! Logs whose length no checkpoint stores: a resume finds the lines that belong to its checkpoint by their steps.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::state::TrainState;
use crate::{
    error::{Error, Result},
    files,
    runs::{
        disk::{shown, sync_folder},
        jsonl::{JsonLines, Lines},
    },
};

/// A log that exists only if it has lines.
pub(super) struct OptionalLog {
    path: PathBuf,
    file: Option<JsonLines>,
}

impl OptionalLog {
    /// Opens the log at `path` and truncates it to the lines that belong to `state`; without one, to nothing. A log without lines
    /// is removed.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn open(path: &Path, state: Option<&TrainState>) -> Result<OptionalLog> {
        let kept = state.map_or_else(|| Ok(Lines::default()), |state| lines_until(path, state))?;
        let mut log = OptionalLog { path: path.to_owned(), file: None };
        match kept.bytes {
            0 => log.remove()?,
            _ => log.file = Some(JsonLines::open(path, &kept)?),
        }
        Ok(log)
    }

    /// Appends a line. The first one creates the file.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn append(&mut self, value: &impl Serialize) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            missing => {
                let file = JsonLines::open(&self.path, &Lines::default())?;
                self.path.parent().map_or(Ok(()), sync_folder)?;
                missing.insert(file)
            }
        };
        file.append(value)
    }

    /// As [`JsonLines::lines`].
    pub fn lines(&self) -> Lines {
        self.file.as_ref().map(JsonLines::lines).unwrap_or_default()
    }

    /// As [`JsonLines::take_back`]; a log without lines is removed.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn take_back(&mut self, lines: &Lines) -> Result<()> {
        match &mut self.file {
            Some(_) if lines.bytes == 0 => self.remove(),
            Some(file) => file.take_back(lines),
            None => Ok(()),
        }
    }

    /// As [`JsonLines::sync`].
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn sync(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), JsonLines::sync)
    }

    fn remove(&mut self) -> Result<()> {
        self.file = None;
        match fs::remove_file(&self.path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(Error::run(format!("cannot remove {}", shown(&self.path).display())).with_cause(cause))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the lines of the log at `path` that belong to `state`.
///
/// # Errors
/// The file cannot be read.
pub(super) fn lines_until(path: &Path, state: &TrainState) -> Result<Lines> {
    #[derive(Deserialize)]
    struct Line<'a> {
        step: u64,
        kind: &'a str,
    }
    let failed = |cause| Error::run(format!("cannot read {}", shown(path).display())).with_cause(cause);
    let file = match files::open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Lines::default()),
        file => file.map_err(failed)?,
    };
    let (mut lines, mut reader, mut line) = (Lines::default(), BufReader::new(file), Vec::new());
    let is_evaluated = state.evaluated.is_some_and(|(at, _)| at == state.step);
    while reader.read_until(b'\n', &mut line).map_err(failed)? > 0 {
        let comes_later = match serde_json::from_slice::<Line>(&line) {
            Ok(Line { step, kind }) => step > state.step || (step == state.step && kind == "eval" && !is_evaluated),
            // No run reads these logs back, so a damaged line stays for inspection.
            Err(_) => !line.ends_with(b"\n"),
        };
        if comes_later {
            break;
        }
        lines.bytes += line.len() as u64;
        line.clear();
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::data::BatcherState;

    fn state(step: u64, evaluated: Option<u64>) -> TrainState {
        let data = BatcherState { epoch: 0, taken: 0, context: 0, sequences: 0, positions: 0, data: String::new() };
        let mut state = TrainState::new(9, data);
        (state.step, state.evaluated) = (step, evaluated.map(|at| (at, None)));
        state
    }

    /// Catches a log that exists without a line, lines of later steps that stay after a resume, and an evaluation that is
    /// recorded twice because the checkpoint was written before it.
    #[test]
    fn a_resumed_log_has_the_lines_of_its_checkpoint_and_exists_only_with_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("histograms.jsonl");
        let mut log = OptionalLog::open(&path, None).unwrap();
        log.sync().unwrap();
        assert!(!path.exists());
        let line = |step: u64, kind: &str| json!({ "step": step, "kind": kind });
        let all = [line(2, "train"), line(2, "eval"), line(4, "train"), line(4, "eval"), line(5, "train")];
        all.iter().for_each(|line| log.append(line).unwrap());
        let whole = fs::read_to_string(&path).unwrap();
        let resumed = |state: Option<&TrainState>| {
            fs::write(&path, format!("{whole}{{\"step\":6,\"ki")).unwrap();
            let log = OptionalLog::open(&path, state).unwrap();
            assert_eq!(log.lines().bytes, fs::metadata(&path).map_or(0, |meta| meta.len()));
            fs::read_to_string(&path).unwrap_or_default().lines().count()
        };
        assert_eq!(resumed(Some(&state(5, None))), 5);
        assert_eq!(resumed(Some(&state(4, Some(4)))), 4);
        assert_eq!(resumed(Some(&state(4, Some(2)))), 3);
        assert_eq!(resumed(Some(&state(1, None))), 0);
        assert!(!path.exists());
        assert_eq!(resumed(None), 0);
        assert!(!path.exists());
    }

    /// Catches a log of an evaluation that failed which stays, empty or not.
    #[test]
    fn lines_that_are_taken_back_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("histograms.jsonl");
        let mut log = OptionalLog::open(&path, None).unwrap();
        log.append(&json!({ "step": 0, "kind": "eval" })).unwrap();
        log.take_back(&Lines::default()).unwrap();
        assert!(!path.exists() && log.lines() == Lines::default());
        log.append(&json!({ "step": 1, "kind": "train" })).unwrap();
        let kept = log.lines();
        log.append(&json!({ "step": 2, "kind": "train" })).unwrap();
        log.take_back(&kept).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1,\"kind\":\"train\"}\n");
    }
}
