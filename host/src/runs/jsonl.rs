//! The run's logs: one JSON object per line, appended, and truncated to a checkpoint's position when the run
//! resumes.
//!
//! A hash of all bytes is updated as the file grows, so that a checkpoint can store the hash of the lines that
//! belong to it.
//!
//! Numbers are printed with the fewest digits that read back as the same bits. JSON has no infinity and no NaN:
//! both are written as `null`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::disk::{hex, shown};
use crate::error::{Error, Result};
use crate::files;

/// The part of a file that belongs to a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lines {
    /// Length in bytes.
    pub bytes: u64,
    /// sha256 of these bytes, in lower-case hexadecimal. Absent in checkpoints of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
}

/// An append-only file of JSON lines.
#[derive(Debug)]
pub struct JsonLines {
    file: File,
    path: PathBuf,
    position: u64,
    /// Hash of the bytes before `position`.
    hash: Sha256,
}

impl JsonLines {
    /// Fails unless the file has the lines that a checkpoint recorded; changes nothing.
    ///
    /// # Errors
    /// As for [`Self::open`]; the file is missing.
    pub fn check(path: &Path, kept: &Lines) -> Result<()> {
        let failed = |cause| Error::run(format!("cannot open {}", shown(path).display())).with_cause(cause);
        match files::open(path) {
            Ok(mut file) => hash_of_kept(path, &mut file, kept).map(|_| ()),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && kept.bytes == 0 => Ok(()),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(foreign(path, "it is missing")),
            Err(cause) => Err(failed(cause)),
        }
    }

    /// Opens the file, or creates it, and truncates it to the lines that a checkpoint recorded, none for a new run:
    /// the resumed run writes the rest again.
    ///
    /// # Errors
    /// The path and the system's error. The file is shorter, no line ends there, or its bytes differ: it is not the
    /// file that the checkpoint belongs to, and is not changed.
    pub fn open(path: &Path, kept: &Lines) -> Result<Self> {
        let failed = |cause| Error::run(format!("cannot open {}", shown(path).display())).with_cause(cause);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        let hash = hash_of_kept(path, &mut file, kept)?;
        file.set_len(kept.bytes).map_err(failed)?;
        Ok(Self { file, path: path.to_path_buf(), position: kept.bytes, hash })
    }

    /// Appends `value` as one line, in one write, so that another process that reads the file sees whole lines.
    ///
    /// # Errors
    /// The path and the system's error; the file is then restored, if the system allows it.
    pub fn append(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value).map_err(|cause| self.failed("write", cause))?;
        line.push(b'\n');
        if let Err(cause) = self.file.write_all(&line) {
            _ = self.file.set_len(self.position);
            return Err(self
                .failed("write", cause)
                .with_hint("make sure that its disk has free space, then continue with --resume"));
        }
        self.position += line.len() as u64;
        self.hash.update(&line);
        Ok(())
    }

    /// The file's content so far, to be stored in a checkpoint from which a resumed run continues.
    pub fn lines(&self) -> Lines {
        Lines { bytes: self.position, sha256: Some(hex(&self.hash.clone().finalize())) }
    }

    /// Removes what was appended after `lines` was returned.
    ///
    /// # Errors
    /// The path and the system's error.
    pub fn take_back(&mut self, lines: &Lines) -> Result<()> {
        if self.position == lines.bytes {
            return Ok(());
        }
        let cut = self.file.set_len(lines.bytes).and_then(|()| hash_of_first(&mut self.file, lines.bytes));
        self.hash = cut.map_err(|cause| self.failed("truncate", cause))?;
        self.position = lines.bytes;
        Ok(())
    }

    /// Makes everything appended so far durable. Must be called before a checkpoint that stores [`Self::lines`].
    ///
    /// # Errors
    /// The path and the system's error.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|cause| self.failed("make durable", cause))
    }

    fn failed(&self, doing: &str, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::run(format!("cannot {doing} {}", shown(&self.path).display())).with_cause(cause)
    }
}

/// Calls `each` with every complete line of a log; a missing log has no lines.
///
/// # Errors
/// The path and the system's error.
pub fn each_line(path: &Path, mut each: impl FnMut(Map<String, Value>)) -> Result<()> {
    let failed = |cause| Error::run(format!("cannot read {}", shown(path).display())).with_cause(cause);
    let file = match files::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(failed)?,
    };
    for line in BufReader::new(file).lines() {
        // A killed run may have left half a line.
        if let Ok(Value::Object(line)) = serde_json::from_str(&line.map_err(failed)?) {
            each(line);
        }
    }
    Ok(())
}

/// Returns the hash of the lines of the file that a checkpoint recorded, after checking them.
fn hash_of_kept(path: &Path, file: &mut File, kept: &Lines) -> Result<Sha256> {
    let failed = |cause| Error::run(format!("cannot read {}", shown(path).display())).with_cause(cause);
    let (length, position) = (file.metadata().map_err(failed)?.len(), kept.bytes);
    if position > length || !ends_line_at(file, position).map_err(failed)? {
        return Err(foreign(path, &format!("it has {length} bytes, and no line ends at byte {position}")));
    }
    let hash = hash_of_first(file, position).map_err(failed)?;
    if kept.sha256.as_ref().is_some_and(|sha256| *sha256 != hex(&hash.clone().finalize())) {
        return Err(foreign(path, &format!("the sha256 of its first {position} bytes differs")));
    }
    Ok(hash)
}

fn foreign(path: &Path, why: &str) -> Error {
    Error::run(format!("{} does not belong to its checkpoint: {why}", shown(path).display()))
        .with_hint("restore the file, or start again under another name with --name")
}

fn ends_line_at(file: &mut File, position: u64) -> io::Result<bool> {
    let Some(last) = position.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.seek(SeekFrom::Start(last))?;
    file.read_exact(&mut byte)?;
    Ok(byte == *b"\n")
}

/// The hash of a file's first bytes.
fn hash_of_first(file: &mut File, bytes: u64) -> io::Result<Sha256> {
    let mut hash = Sha256::new();
    file.seek(SeekFrom::Start(0))?;
    io::copy(&mut file.take(bytes), &mut hash)?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        // In memory if the system offers that: a test syncs hundreds of times.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = folder.path().join("metrics.jsonl");
        (folder, path)
    }

    /// Catches a resume that leaves a gap or a duplicate, or appends at the old end after truncation.
    #[test]
    fn killed_and_resumed_gives_the_same_bytes_as_uninterrupted() {
        let (_folder, path) = file();
        let line = |step: u64| json!({ "step": step, "loss": 1.0 / (step as f64 + 3.0) });
        let mut whole = JsonLines::open(&path, &Lines::default()).unwrap();
        (0..10).for_each(|step| whole.append(&line(step)).unwrap());
        let expected = fs::read(&path).unwrap();
        drop(whole);
        for cut in 0..expected.len() {
            let mut first = JsonLines::open(&path, &Lines::default()).unwrap();
            (0..4).for_each(|step| first.append(&line(step)).unwrap());
            first.sync().unwrap();
            let kept = first.lines();
            drop(first);
            // The killed process had written up to byte `cut`.
            fs::write(&path, &expected[..cut.max(kept.bytes as usize)]).unwrap();
            let mut second = JsonLines::open(&path, &kept).unwrap();
            (4..10).for_each(|step| second.append(&line(step)).unwrap());
            assert_eq!(fs::read(&path).unwrap(), expected, "killed at byte {cut}");
        }
    }

    /// Catches a truncation that pads a lost tail with zeros, or cuts within a line.
    #[test]
    fn a_position_that_does_not_fit_the_file_is_refused() {
        let (_folder, path) = file();
        fs::write(&path, "{\"step\":1}\n").unwrap();
        let at = |bytes| JsonLines::open(&path, &Lines { bytes, sha256: None });
        for position in [1, 10, 12, u64::MAX] {
            let error = at(position).unwrap_err();
            assert!(error.message().contains("metrics.jsonl"), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n");
        assert_eq!((at(0).unwrap().lines().bytes, fs::read(&path).unwrap().len()), (0, 0));
    }

    /// Catches a changed byte in lines that stay, an error for one in lines that are removed, a refused file that
    /// is truncated, and a hash that continues from the old end.
    #[test]
    fn lines_that_were_changed_are_refused() {
        let (_folder, path) = file();
        let mut lines = JsonLines::open(&path, &Lines::default()).unwrap();
        (1..3).for_each(|step| lines.append(&json!({ "step": step })).unwrap());
        let kept = lines.lines();
        lines.append(&json!({"step": 3})).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x80;
            fs::write(&path, &damaged).unwrap();
            match JsonLines::open(&path, &kept) {
                Ok(mut again) if at as u64 >= kept.bytes => {
                    again.append(&json!({"step": 3})).unwrap();
                    assert_eq!((again.lines(), fs::read(&path).unwrap()), (lines.lines(), whole.clone()));
                }
                Err(error) if (at as u64) < kept.bytes => {
                    assert!(error.message().contains("metrics.jsonl"), "{error}");
                    assert_eq!(fs::read(&path).unwrap(), damaged);
                }
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }

    /// Catches a line that stays, or a hash that still includes it.
    #[test]
    fn appended_lines_can_be_removed() {
        let (_folder, path) = file();
        let mut lines = JsonLines::open(&path, &Lines::default()).unwrap();
        lines.append(&json!({"step": 1})).unwrap();
        let (before, bytes) = (lines.lines(), fs::read(&path).unwrap());
        lines.append(&json!({"step": 2})).unwrap();
        lines.take_back(&before).unwrap();
        assert_eq!((lines.lines(), fs::read(&path).unwrap()), (before, bytes));
    }

    /// Catches rounded numbers, reordered keys, and non-finite numbers that make the line unreadable as JSON.
    #[test]
    fn numbers_keep_their_bits_keys_their_order_and_nan_is_null() {
        #[derive(Serialize)]
        struct Line {
            z: f64,
            a: f32,
            nan: f64,
            infinity: f64,
        }
        let (_folder, path) = file();
        let mut lines = JsonLines::open(&path, &Lines::default()).unwrap();
        lines.append(&Line { z: 0.1 + 0.2, a: 0.1, nan: f64::NAN, infinity: f64::INFINITY }).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"z\":0.30000000000000004,\"a\":0.1,\"nan\":null,\"infinity\":null}\n");
    }
}
