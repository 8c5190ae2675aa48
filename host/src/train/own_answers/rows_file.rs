//! The file that a model's own answers are written to: rows are appended to `OUT.partial`, which becomes `OUT` once all prompts
//! are answered, so that an interruption or a failure loses only the prompts that were being answered.

use std::{
    ffi::OsString,
    fmt::Display,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    runs::disk::make_durable,
};

/// Rows on their way to a file.
pub struct RowsFile {
    target: PathBuf,
    partial: PathBuf,
    file: File,
    rows: usize,
    /// Bytes of these rows.
    length: u64,
}

impl RowsFile {
    /// A file that becomes `target`.
    ///
    /// # Errors
    /// A request error if an earlier interruption has left rows there; a file that cannot be created.
    pub fn create(target: &Path) -> Result<RowsFile> {
        let mut name = OsString::from(target.as_os_str());
        name.push(".partial");
        let partial = PathBuf::from(name);
        // Appending, so that what follows a line that was cut off begins where it began.
        match File::options().append(true).create_new(true).open(&partial) {
            Ok(file) => Ok(RowsFile { target: target.to_owned(), partial, file, rows: 0, length: 0 }),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                let message =
                    format!("--out: {} exists already: the rows of an earlier, interrupted command", partial.display());
                Err(Error::request(message).with_hint("rename it to keep it, or remove it first"))
            }
            Err(cause) => Err(Error::request(format!("--out: cannot create {}", partial.display())).with_cause(cause)),
        }
    }

    /// Appends lines.
    ///
    /// # Errors
    /// The file cannot be written, for example on a full disk; it then ends with the last whole line before.
    pub(super) fn append(&mut self, lines: &str) -> Result<()> {
        if let Err(cause) = self.file.write_all(lines.as_bytes()) {
            // Shortening needs no room. If it fails as well, the torn line is the last one.
            _ = self.file.set_len(self.length);
            return Err(self.failed(cause));
        }
        self.rows += lines.lines().count();
        self.length += lines.len() as u64;
        Ok(())
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::run(format!("cannot write {}", self.partial.display())).with_cause(cause)
    }

    /// Gives the file its name. `counts` say what became of the answers.
    ///
    /// # Errors
    /// No row was written; there is then no file. The file system failed, or another program has written a file of this name
    /// meanwhile; the rows are then still in the partial file.
    pub fn finish(self, counts: &impl Display) -> Result<()> {
        if self.rows == 0 {
            let counts = counts.to_string();
            let what = format!("no row was written, so that there is no {}", self.target.display());
            return Err(Error::run(what).with_details(counts.lines().map(str::to_owned)));
        }
        self.file.sync_all().map_err(|cause| self.failed(cause))?;
        if self.target.exists() {
            let what = format!("{} was written by another program meanwhile; {}", self.target.display(), self.kept());
            return Err(Error::run(what));
        }
        make_durable(&self.partial, &self.target)
    }

    /// The error of a command that was stopped after `done` of `prompts` prompts.
    pub(super) fn interrupted(&self, done: usize, prompts: usize) -> Error {
        Error::interrupted(format!("{done} of {prompts} prompts are answered; {}", self.kept())).with_hint(format!(
            "rename {} to use its rows; the same command starts again from the first prompt",
            self.partial.display()
        ))
    }

    /// What a failure leaves.
    pub(super) fn kept(&self) -> String {
        match self.rows {
            0 => "no row was written".to_owned(),
            1 => format!("1 row is kept in {}", self.partial.display()),
            rows => format!("{rows} rows are kept in {}", self.partial.display()),
        }
    }
}

/// Leaves no file without rows.
impl Drop for RowsFile {
    fn drop(&mut self) {
        if self.rows == 0 {
            // If it cannot be removed, the next command names it.
            _ = fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches rows that are lost by an interruption, an empty file that is left, rows of an earlier interruption or a file
    /// of another program that are overwritten, and a partial file that is left beside the whole one.
    #[test]
    fn rows_are_kept_in_a_partial_file_until_all_are_there() {
        let lab = tempfile::tempdir().unwrap();
        let (target, partial) = (lab.path().join("own.jsonl"), lab.path().join("own.jsonl.partial"));
        let empty = RowsFile::create(&target).unwrap();
        assert!(empty.interrupted(0, 9).message().contains("no row was written"));
        let why = empty.finish(&"answers 0").unwrap_err().report();
        assert!(why.contains("no row was written") && why.contains("answers 0"), "{why}");
        assert!(!partial.exists() && !target.exists());
        let mut rows = RowsFile::create(&target).unwrap();
        rows.append("{}\n{}\n").unwrap();
        let error = rows.interrupted(2, 9);
        assert_eq!(error.exit_code(), 130);
        assert!(
            error.message().contains("2 of 9 prompts") && error.message().contains("2 rows are kept in"),
            "{error}"
        );
        drop(rows);
        assert_eq!(fs::read_to_string(&partial).unwrap(), "{}\n{}\n");
        assert!(RowsFile::create(&target).err().unwrap().report().contains("exists already"));
        fs::remove_file(&partial).unwrap();
        fs::write(&target, "another's").unwrap();
        let mut rows = RowsFile::create(&target).unwrap();
        rows.append("{}\n").unwrap();
        assert!(rows.finish(&"").unwrap_err().message().contains("by another program meanwhile; 1 row is kept"));
        assert_eq!(fs::read_to_string(&target).unwrap(), "another's");
        [&partial, &target].into_iter().for_each(|file| fs::remove_file(file).unwrap());
        let mut rows = RowsFile::create(&target).unwrap();
        rows.append("{}\n").unwrap();
        rows.finish(&"").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "{}\n");
        assert!(!partial.exists());
    }
}
