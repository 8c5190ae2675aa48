//! The run's logs: one JSON object a line, appended, and cut back to a checkpoint's position when the run resumes.
//!
//! Numbers are printed with the fewest digits that read back as the same bits. JSON has no infinity and no NaN: both are
//! written as `null`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};

/// An append-only file of JSON lines.
#[derive(Debug)]
pub struct JsonLines {
    file: File,
    path: PathBuf,
    position: u64,
}

impl JsonLines {
    /// Opens the file, or creates it. A last line that was cut off (the process was killed while writing it) is removed.
    ///
    /// # Errors
    /// The path and the system's reason.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |cause| Error::run(format!("cannot open {}", path.display())).with_cause(cause);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        let position = end_of_last_line(&mut file).map_err(failed)?;
        file.set_len(position).map_err(failed)?;
        Ok(Self { file, path: path.to_path_buf(), position })
    }

    /// Appends `value` as one line, in one write, so that another process reading the file sees whole lines.
    ///
    /// # Errors
    /// The path and the system's reason; the file is then as before, if the system lets it be.
    pub fn append(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value).map_err(|cause| self.failed("write", cause))?;
        line.push(b'\n');
        if let Err(cause) = self.file.write_all(&line) {
            _ = self.file.set_len(self.position);
            return Err(self.failed("write", cause).with_hint("see that its disk has room, then go on with --resume"));
        }
        self.position += line.len() as u64;
        Ok(())
    }

    /// How many bytes the file has: what a checkpoint keeps, so that a resumed run goes on from here.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Makes everything appended so far durable. Must come before a checkpoint that holds [`Self::position`].
    ///
    /// # Errors
    /// The path and the system's reason.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|cause| self.failed("make durable", cause))
    }

    /// Cuts the file back to `position`, as a checkpoint kept it: what came after will be written again by the resumed run.
    ///
    /// # Errors
    /// The file is shorter, or no line ends there: it is not the file that the checkpoint belongs to.
    pub fn truncate_to(&mut self, position: u64) -> Result<()> {
        let fits =
            position <= self.position && self.ends_line_at(position).map_err(|cause| self.failed("read", cause))?;
        if !fits {
            let (path, now) = (self.path.display(), self.position);
            return Err(Error::run(format!(
                "{path} does not belong to its checkpoint: it has {now} bytes, and no line ends at byte {position}"
            ))
            .with_hint("put the file back as it was, or start again under another name with --name"));
        }
        self.file.set_len(position).map_err(|cause| self.failed("cut", cause))?;
        self.position = position;
        Ok(())
    }

    fn ends_line_at(&mut self, position: u64) -> io::Result<bool> {
        let Some(last) = position.checked_sub(1) else { return Ok(true) };
        let mut byte = [0];
        self.file.seek(SeekFrom::Start(last))?;
        self.file.read_exact(&mut byte)?;
        Ok(byte == *b"\n")
    }

    fn failed(&self, doing: &str, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::run(format!("cannot {doing} {}", self.path.display())).with_cause(cause)
    }
}

/// Position after the last line feed; 0 where there is none.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = vec![0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        block.truncate((end - start) as usize);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        if let Some(index) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + index as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        // In memory where the system has such a place: a test syncs hundreds of times.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = folder.path().join("metrics.jsonl");
        (folder, path)
    }

    /// Catches a resume that leaves a gap or a duplicate, or appends at the old end after a cut.
    #[test]
    fn killed_and_resumed_gives_the_same_bytes_as_uninterrupted() {
        let (_folder, path) = file();
        let line = |step: u64| json!({ "step": step, "loss": 1.0 / (step as f64 + 3.0) });
        let mut whole = JsonLines::open(&path).unwrap();
        (0..10).for_each(|step| whole.append(&line(step)).unwrap());
        let expected = fs::read(&path).unwrap();
        drop(whole);
        for cut in 0..expected.len() {
            fs::remove_file(&path).unwrap();
            let mut first = JsonLines::open(&path).unwrap();
            (0..4).for_each(|step| first.append(&line(step)).unwrap());
            first.sync().unwrap();
            let kept = first.position();
            drop(first);
            // The killed process got as far as byte `cut`.
            fs::write(&path, &expected[..cut.max(kept as usize)]).unwrap();
            let mut second = JsonLines::open(&path).unwrap();
            second.truncate_to(kept).unwrap();
            (4..10).for_each(|step| second.append(&line(step)).unwrap());
            assert_eq!(fs::read(&path).unwrap(), expected, "killed at byte {cut}");
        }
    }

    /// Catches a half line that the next line is glued to, also one longer than the block that is searched.
    #[test]
    fn a_line_that_was_cut_off_is_removed_when_the_file_is_opened() {
        let (_folder, path) = file();
        for half in [1, 4095, 4096, 4097, 10_000] {
            for before in ["", "{\"step\":1}\n", "{}\n{}\n"] {
                fs::write(&path, format!("{before}{}", "x".repeat(half))).unwrap();
                let mut lines = JsonLines::open(&path).unwrap();
                assert_eq!(lines.position(), before.len() as u64);
                lines.append(&json!({"step": 2})).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), format!("{before}{{\"step\":2}}\n"));
            }
        }
    }

    /// Catches a cut that pads a lost tail with zeros, or cuts within a line.
    #[test]
    fn a_position_that_does_not_fit_the_file_is_refused() {
        let (_folder, path) = file();
        let mut lines = JsonLines::open(&path).unwrap();
        lines.append(&json!({"step": 1})).unwrap();
        for position in [1, lines.position() - 1, lines.position() + 1, u64::MAX] {
            let error = lines.truncate_to(position).unwrap_err();
            assert!(error.message().contains("metrics.jsonl"), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n");
        lines.truncate_to(0).unwrap();
        assert_eq!((lines.position(), fs::read(&path).unwrap().len()), (0, 0));
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
        let mut lines = JsonLines::open(&path).unwrap();
        lines.append(&Line { z: 0.1 + 0.2, a: 0.1, nan: f64::NAN, infinity: f64::INFINITY }).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"z\":0.30000000000000004,\"a\":0.1,\"nan\":null,\"infinity\":null}\n");
    }
}
