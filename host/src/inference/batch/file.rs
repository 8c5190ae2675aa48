//! The file of answers, which an interrupted command leaves and the same command continues; beside it, a summary with the
//! settings that its rows were made with.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    files,
    inference::settings::{summary_path, write_summary},
};

use super::request::AnswerCounts;

/// Answers on their way to a file.
pub(super) struct AnswersFile {
    path: PathBuf,
    summary: PathBuf,
    file: File,
    settings: Map<String, Value>,
    rows: usize,
    /// Bytes of these rows.
    length: u64,
    /// Whether the summary has the counts of a command that ended.
    pub(super) has_counts: bool,
}

impl AnswersFile {
    /// Opens a new file, or one that an earlier command with the same settings began. A last line that was cut off is removed.
    ///
    /// # Errors
    /// A file with rows of other settings, with more than `total` rows, or in use by another process.
    pub(super) fn open(path: &Path, settings: Map<String, Value>, total: usize) -> Result<AnswersFile> {
        let summary = summary_path(path);
        let exists = fs::symlink_metadata(path).is_ok();
        if exists && !path.is_file() {
            return Err(refused(path, "it is not a regular file"));
        }
        let earlier = read_summary(&summary);
        let has_counts = exists && earlier.as_ref().is_some_and(|(_, figures)| !figures.is_null());
        if exists {
            check_settings(path, &summary, earlier.map(|(settings, _)| settings), &settings)?;
        } else if fs::symlink_metadata(&summary).is_ok() && earlier.is_none() {
            return Err(refused(&summary, "the settings would be written there, and it holds something else"));
        }
        let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file =
            open.map_err(|cause| Error::request(format!("--out: cannot open {}", path.display())).with_cause(cause))?;
        match file.try_lock() {
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => return Err(refused(path, "another process is writing it")),
        }
        let (rows, length) = whole_lines(&mut file).map_err(|cause| cannot("read", path, cause))?;
        if rows > total {
            return Err(refused(path, &format!("it has {rows} rows, and there are only {total} answers")));
        }
        let shortened = file.set_len(length).and_then(|()| file.seek(SeekFrom::Start(length)));
        shortened.map_err(|cause| cannot("write", path, cause))?;
        if !exists {
            write_summary(&summary, &settings, None)?;
        }
        Ok(AnswersFile { path: path.to_owned(), summary, file, settings, rows, length, has_counts })
    }

    /// Rows in the file.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Appends a row, a line.
    ///
    /// # Errors
    /// The file cannot be written, for example on a full disk; it then ends with the last whole row.
    pub(super) fn append(&mut self, line: &str) -> Result<()> {
        if let Err(cause) = self.file.write_all(line.as_bytes()) {
            // Shortening needs no room. If it fails as well, the next command removes the torn row.
            _ = self.file.set_len(self.length);
            return Err(cannot("write", &self.path, cause).with_hint("the same command continues where the file ends"));
        }
        self.rows += 1;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Makes the rows durable, and adds `counts` to the summary.
    ///
    /// # Errors
    /// The file system failed.
    pub(super) fn finish(self, counts: &AnswerCounts) -> Result<()> {
        self.file.sync_all().map_err(|cause| cannot("write", &self.path, cause))?;
        write_summary(&self.summary, &self.settings, Some(serde_json::to_value(counts).unwrap_or_default()))
    }

    /// The error of a command that was stopped before all of `total` answers were there.
    pub(super) fn interrupted(&self, total: usize) -> Error {
        Error::interrupted(format!("{} of {total} answers are in {}", self.rows, self.path.display()))
            .with_hint("the same command continues where the file ends")
    }
}

fn cannot(doing: &str, path: &Path, cause: std::io::Error) -> Error {
    Error::run(format!("cannot {doing} {}", path.display())).with_cause(cause)
}

fn refused(path: &Path, why: &str) -> Error {
    Error::request(format!("--out: {} exists already: {why}", path.display()))
        .with_hint("name a new file, or remove this one first")
}

/// Refuses to continue rows of other settings, and names the settings that differ.
fn check_settings(
    path: &Path,
    summary: &Path,
    earlier: Option<Map<String, Value>>,
    settings: &Map<String, Value>,
) -> Result<()> {
    if files::is_missing(summary) {
        return Err(refused(path, &format!("it cannot be continued, because there is no {}", summary.display())));
    }
    let Some(earlier) = &earlier else {
        return Err(refused(path, &format!("{} does not say what its rows were made with", summary.display())));
    };
    let names = settings.keys().chain(earlier.keys().filter(|name| !settings.contains_key(*name)));
    let differing: Vec<String> = names
        .filter(|name| settings.get(*name) != earlier.get(*name))
        .map(|name| {
            let shown =
                |settings: &Map<String, Value>| settings.get(name).map_or("absent".to_owned(), Value::to_string);
            format!("{name}: {} there, {} now", shown(earlier), shown(settings))
        })
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(refused(path, "its rows were made with other settings").with_details(differing))
}

/// Returns the settings and the figures in a summary that an earlier command wrote.
fn read_summary(summary: &Path) -> Option<(Map<String, Value>, Value)> {
    let mut summary: Value = serde_json::from_slice(&files::read(summary).ok()?).ok()?;
    summary.get("telos")?;
    let figures = summary.get("figures").cloned().unwrap_or_default();
    match summary.get_mut("settings")?.take() {
        Value::Object(settings) => Some((settings, figures)),
        _ => None,
    }
}

/// Counts the lines of a file that end with a line break, and their bytes.
fn whole_lines(file: &mut File) -> std::io::Result<(usize, u64)> {
    let (mut rows, mut at, mut length, mut buffer) = (0, 0_u64, 0_u64, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((rows, length));
        }
        for (index, byte) in buffer[..read].iter().enumerate() {
            if *byte == b'\n' {
                rows += 1;
                length = at + index as u64 + 1;
            }
        }
        at += read as u64;
    }
}
