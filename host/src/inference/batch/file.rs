//! The file of answers, which an interrupted command leaves and the same command continues; beside it, a summary with the
//! settings that its rows were made with.

use std::{
    fs::{self, File, TryLockError},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use chrono::NaiveDate;
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
    /// `check` gets the number of every row that is there, from 0, and its line; it returns what is wrong with it.
    ///
    /// # Errors
    /// A file with rows of other settings, with more than `total` rows, with a row that `check` refuses, or in use by another process.
    pub(super) fn open(
        path: &Path,
        settings: Map<String, Value>,
        total: usize,
        check: &mut dyn FnMut(usize, &str) -> Result<(), String>,
    ) -> Result<AnswersFile> {
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
        check_rows(&mut file, path, rows, check)?;
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

/// Checks the first `rows` lines one by one: a file that was edited cannot be continued by its number of lines.
fn check_rows(
    file: &mut File,
    path: &Path,
    rows: usize,
    check: &mut dyn FnMut(usize, &str) -> Result<(), String>,
) -> Result<()> {
    let failed = |cause| cannot("read", path, cause);
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let (mut reader, mut line) = (BufReader::new(file), Vec::new());
    for row in 0..rows {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(failed)?;
        let text = std::str::from_utf8(&line).map_err(|_| "it is not UTF-8 text".to_owned());
        text.and_then(|text| check(row, text.trim_end_matches('\n'))).map_err(|why| {
            let place = format!("{}:{}", path.display(), row + 1);
            Error::request(format!("--out: {place}: {why}; the file cannot be continued")).with_hint(format!(
                "remove line {} and all lines after it, and the command continues there; or name a new file",
                row + 1
            ))
        })?;
    }
    Ok(())
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

/// The setting for the date that a chat template prints.
pub(super) const DATE: &str = "date";

/// Returns the date that the rows of a file of answers were made with, if they have one.
pub(super) fn recorded_date(path: &Path) -> Option<NaiveDate> {
    fs::symlink_metadata(path).ok()?;
    let (settings, _) = read_summary(&summary_path(path))?;
    settings.get(DATE)?.as_str()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches lines that are not checked, or checked under another number, and a refusal without the line and the remedy.
    #[test]
    fn the_first_wrong_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let settings =
            Map::from_iter([("seed".to_owned(), Value::from(1)), (DATE.to_owned(), Value::from("2026-02-03"))]);
        let open = |check: &mut dyn FnMut(usize, &str) -> Result<(), String>| {
            AnswersFile::open(&path, settings.clone(), 3, check)
        };
        assert_eq!(recorded_date(&path), None);
        let mut file = open(&mut |_, _| panic!("a new file has no row")).unwrap();
        ["a\n", "b\n"].iter().for_each(|line| file.append(line).unwrap());
        drop(file);
        fs::write(&path, "a\nb\nto").unwrap();
        assert_eq!(recorded_date(&path), NaiveDate::from_ymd_opt(2026, 2, 3));
        let mut seen = Vec::new();
        let error = open(&mut |row, line| {
            seen.push((row, line.to_owned()));
            if line == "b" { Err("it is b".to_owned()) } else { Ok(()) }
        });
        let error = error.err().unwrap();
        assert_eq!((error.exit_code(), &seen[..]), (2, &[(0, "a".to_owned()), (1, "b".to_owned())][..]));
        assert!(error.message().contains("a.jsonl:2: it is b"), "{error:?}");
        assert!(error.hint().unwrap().contains("remove line 2"), "{error:?}");
        // Nothing was removed, not even the torn line.
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\nto");
        assert_eq!(open(&mut |_, _| Ok(())).unwrap().rows(), 2);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\n");
    }
}
