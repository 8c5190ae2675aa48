//! Bytes that are appended once and read many times: in memory as long as they are few, and otherwise in a file without a
//! name, which the system removes when the process ends, however it ends.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::data::error::{DataError, Result};

/// The most bytes of one log that are kept in memory.
const MOST_IN_MEMORY: usize = 64 << 20;
/// Once there is a file, this many are collected before they are written.
const BUFFER: usize = 1 << 20;

/// Bytes that are appended once and read many times.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<File>,
    /// The length of the file.
    written: u64,
    /// What follows the file's content.
    tail: Vec<u8>,
}

/// The folder of the file: `TMPDIR`, or `/var/tmp`, which is on a disk where `/tmp` may be in memory.
fn folder() -> PathBuf {
    let usual = Path::new("/var/tmp");
    if std::env::var_os("TMPDIR").is_none() && usual.is_dir() { usual.to_owned() } else { std::env::temp_dir() }
}

impl Log {
    /// Where the next bytes will be: the number of bytes so far.
    pub fn end(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// A disk that is full or cannot be written to.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.tail.extend_from_slice(bytes);
        let most = if self.file.is_some() { BUFFER } else { MOST_IN_MEMORY };
        if self.tail.len() > most { self.write().map_err(|error| failed("written to", error)) } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(folder())?),
        };
        file.write_all(&self.tail)?;
        self.written += self.tail.len() as u64;
        self.tail = Vec::with_capacity(BUFFER);
        Ok(())
    }

    /// The bytes from `at` on, as many as `bytes` has; fewer at the end.
    ///
    /// # Errors
    /// A disk that cannot be read.
    pub fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        let end = at.saturating_add(length as u64).min(self.end());
        let mut bytes = vec![0; end.saturating_sub(at) as usize];
        let from_file = (self.written.saturating_sub(at) as usize).min(bytes.len());
        let (first, rest) = bytes.split_at_mut(from_file);
        if let Some(file) = self.file.as_ref().filter(|_| !first.is_empty()) {
            file.read_exact_at(first, at).map_err(|error| failed("read", error))?;
        }
        let start = at.saturating_sub(self.written) as usize;
        rest.copy_from_slice(self.tail.get(start..start + rest.len()).unwrap_or_default());
        Ok(bytes)
    }

    /// As [`Log::read`], where data that was read before is needed again in the middle of a step. If the disk cannot be read any
    /// more, the step cannot be computed: the error is raised ([`DataError::raise`]) and ends the command.
    pub fn read_again(&self, at: u64, length: usize) -> Vec<u8> {
        self.read(at, length).unwrap_or_else(|error| error.raise())
    }
}

fn failed(what: &str, error: io::Error) -> DataError {
    let remedy = match what {
        "read" => "see whether its disk still works, or set TMPDIR to a folder on another disk",
        _ => "set TMPDIR to a folder with as much free space as the data, unpacked, takes twice",
    };
    DataError::Unusable {
        path: folder(),
        what: format!("a temporary file of rows cannot be {what}"),
        remedy: remedy.to_owned(),
        source: Some(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches bytes that are lost, doubled or shifted where the file ends and memory begins.
    #[test]
    fn bytes_are_the_same_in_memory_and_in_the_file() {
        let (mut log, mut all) = (Log::default(), Vec::new());
        for piece in 0..151_u32 {
            let bytes: Vec<u8> = (0..(1 << 19) + piece).map(|at| (at ^ piece) as u8).collect();
            log.append(&bytes).unwrap();
            all.extend(bytes);
        }
        assert!(log.file.is_some() && !log.tail.is_empty() && log.end() == all.len() as u64);
        for at in [0, 1, log.written - 5, log.written, log.written + 3, log.end() - 2, log.end(), log.end() + 9] {
            let expected = all.get(at as usize..).unwrap_or_default();
            assert_eq!(log.read(at, 11).unwrap(), expected[..expected.len().min(11)], "at {at}");
        }
    }
    /// Catches a run that panics, or goes on with wrong data, when the disk of its rows fails in the middle of a step.
    #[test]
    fn a_disk_that_fails_in_a_step_is_an_error_of_the_run() {
        let mut log = Log::default();
        log.append(&vec![7; MOST_IN_MEMORY + 1]).unwrap();
        log.file.as_ref().unwrap().set_len(5).unwrap();
        let error = DataError::caught(|| Ok(log.read_again(0, 9))).unwrap_err();
        let report = error.report();
        assert!(report.contains("a temporary file of rows cannot be read") && report.contains("TMPDIR"), "{report}");
        assert_eq!(error.exit_code(), 1);
    }
}
