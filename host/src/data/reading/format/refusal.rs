//! The error that names an unsupported format, with the command that converts the file.

use std::path::Path;

use crate::data::error::DataError;

/// The error for a file of an unsupported format. In `remedy`, `IN` stands for the file and `OUT` for a file of
/// JSON lines in the current folder.
pub(in crate::data) fn refuse(path: &Path, what: &str, remedy: &str) -> DataError {
    let (from, to) = (quoted(path), quoted(&lines_beside(path)));
    let remedy = remedy.split("IN").map(|piece| piece.replace("OUT", &to)).collect::<Vec<_>>().join(&from);
    DataError::Format { path: path.to_owned(), what: what.to_owned(), remedy }
}

/// `FILE > FILE.jsonl`, for a command that converts a file.
pub(in crate::data) fn from_to(path: &Path) -> String {
    format!("{} > {}", quoted(path), quoted(&lines_beside(path)))
}

/// The file's name with the ending `.jsonl`, in the current folder.
fn lines_beside(path: &Path) -> std::path::PathBuf {
    let mut name = path.to_owned();
    if name.extension().is_some_and(|ending| ["gz", "zst"].iter().any(|packed| ending.eq_ignore_ascii_case(packed))) {
        name.set_extension("");
    }
    let same = name.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("jsonl"));
    let lines = name.with_extension(if same { "converted.jsonl" } else { "jsonl" });
    lines.file_name().map_or(lines.clone(), Into::into)
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
