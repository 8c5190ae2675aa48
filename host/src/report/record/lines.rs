//! Reads a log of JSON lines that may be in use, incomplete or damaged.

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use crate::files;

/// What is missing of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// There is no such file.
    NoFile(String),
    /// Lines were skipped, or the file could not be read to its end.
    LeftOut(String),
}

impl Remark {
    /// The text for a reader.
    pub fn text(&self) -> &str {
        match self {
            Remark::NoFile(text) | Remark::LeftOut(text) => text,
        }
    }
}

/// Passes each line of the file `name` in `folder` to `line`. Returns a remark for the reader if something is missing or was skipped.
pub fn read(folder: &Path, name: &str, mut line: impl FnMut(Map<String, Value>)) -> Option<Remark> {
    let file = match files::open(&folder.join(name)) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            return Some(Remark::NoFile(format!("there is no {name}")));
        }
        Err(cause) => return Some(Remark::LeftOut(format!("{name} cannot be read: {cause}"))),
    };
    let (mut reader, mut bytes, mut number) = (BufReader::new(file), Vec::new(), 0_u64);
    let (mut damaged, mut first, mut incomplete) = (0_u64, 0, false);
    loop {
        bytes.clear();
        match reader.read_until(b'\n', &mut bytes) {
            Ok(0) => break,
            Ok(_) => number += 1,
            Err(cause) => {
                return Some(Remark::LeftOut(format!("{name} cannot be read beyond line {number}: {cause}")));
            }
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => line(object),
            _ if !bytes.ends_with(b"\n") => incomplete = true,
            _ => {
                damaged += 1;
                first = if damaged == 1 { number } else { first };
            }
        }
    }
    let mut remarks = Vec::new();
    if damaged > 0 {
        let lines = if damaged == 1 { "line is" } else { "lines are" };
        remarks.push(format!("{damaged} {lines} not a JSON object and skipped, the first is line {first}"));
    }
    if incomplete {
        remarks.push(format!("the last line, {number}, is incomplete and skipped"));
    }
    (!remarks.is_empty()).then(|| Remark::LeftOut(format!("{name}: {}", remarks.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &[u8]) -> (usize, Option<Remark>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("log.jsonl"), text).unwrap();
        let mut count = 0;
        let remark = read(folder.path(), "log.jsonl", |_| count += 1);
        (count, remark)
    }

    /// Catches a reader that stops at the first damaged line, and one that counts a line twice.
    #[test]
    fn damaged_and_incomplete_lines_are_skipped_and_named() {
        assert_eq!(read_text(b"{\"a\":1}\n{\"a\":2}\n"), (2, None));
        assert_eq!(read_text(b"{\"a\":1}\n{\"a\":2}"), (2, None));
        let (count, remark) = read_text(b"{\"a\":1}\nx\n[1]\n\xff\n{\"a\":2}\n{\"a\":");
        assert_eq!(count, 2);
        let expected = "log.jsonl: 3 lines are not a JSON object and skipped, the first is line 2; the last line, 6, is \
                        incomplete and skipped";
        assert_eq!(remark, Some(Remark::LeftOut(expected.to_owned())));
        assert_eq!(read_text(b""), (0, None));
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let remark = read(folder.path(), "log.jsonl", |_| ());
        assert_eq!(remark, Some(Remark::NoFile("there is no log.jsonl".to_owned())));
    }
}
