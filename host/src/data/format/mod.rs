//! The text in a file, whatever it is packed or encoded in; files of formats that are not read are named as what they are.
//!
//! | bytes | read as |
//! |---|---|
//! | UTF-8, with or without a byte order mark | itself; the mark is not part of the data |
//! | UTF-16 with a byte order mark | its text |
//! | gzip | what it holds |
//! | Parquet | rows: a line of JSON for each; see [`parquet`] |
//! | a Git LFS pointer, other archives, UTF-16 without a mark, binary data | refused, with the line that fetches or converts it |

pub mod parquet;

use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::foreign::is_lfs_pointer;
use super::{DataError, Result};
use crate::capacity;

/// What a file is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Running text.
    Text,
    /// Rows.
    Rows,
}

/// Formats that are not read: first bytes, name, and the command that converts `IN`.
const REFUSED: &[(&[u8], &str, &str)] = &[
    (b"PK\x03\x04", "a zip archive or an Office document", "unpack it: unzip IN"),
    (b"BZh", "compressed by bzip2", "unpack it: bzip2 -dk IN"),
    (b"\xFD7zXZ\0", "compressed by xz", "unpack it: xz -dk IN"),
    (b"\x28\xB5\x2F\xFD", "compressed by Zstandard", "unpack it: zstd -d IN"),
    (b"\x04\x22\x4D\x18", "compressed by LZ4", "unpack it: lz4 -d IN"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive", "unpack it: 7z x IN"),
    (
        b"ARROW1\0\0",
        "an Arrow (Feather) file",
        "make JSON lines of it: python3 -c \"import pandas; pandas.read_feather('IN').to_json('OUT', orient='records', lines=True)\"",
    ),
    (
        b"\xFF\xFF\xFF\xFF",
        "an Arrow stream, as the library datasets keeps it",
        "make JSON lines of it: python3 -c \"import datasets; datasets.Dataset.from_file('IN').to_json('OUT')\"",
    ),
    (
        b"SQLite format 3\0",
        "an SQLite database",
        "make JSON lines of a table: sqlite3 -json IN \"select * from TABLE\" | jq -c '.[]' > OUT",
    ),
    (b"\x89HDF\r\n", "an HDF5 file", "make JSON lines of it with h5py and json"),
    (b"\x93NUMPY", "a NumPy array", "make JSON lines of it with numpy and json"),
    (b"%PDF-", "a PDF document", "take its text out: pdftotext IN"),
];

/// The text of a file with these bytes.
///
/// # Errors
/// A format that is not read, named with the command that converts it; bytes that are not text.
pub fn text(path: &Path, bytes: Vec<u8>, purpose: Purpose) -> Result<String> {
    if bytes.starts_with(b"\x1F\x8B") {
        let unpacked = unpack(path, &bytes, most_unpacked())?;
        if unpacked.starts_with(b"\x1F\x8B") {
            return Err(refuse(path, "gzip within gzip", "unpack it once: gunzip -k IN"));
        }
        if unpacked.get(257..262) == Some(b"ustar") {
            return Err(refuse(path, "a tar archive within gzip", "unpack it: tar -xzf IN"));
        }
        return plain(path, unpacked, purpose);
    }
    plain(path, bytes, purpose)
}

fn plain(path: &Path, bytes: Vec<u8>, purpose: Purpose) -> Result<String> {
    if is_lfs_pointer(&bytes) {
        return Err(DataError::LfsPointer(path.to_owned()));
    }
    if bytes.starts_with(parquet::MAGIC) {
        return match purpose {
            Purpose::Rows => parquet::lines(path, bytes),
            Purpose::Text => {
                Err(refuse(path, "a Parquet file, which holds rows and not running text", parquet::TO_TEXT))
            }
        };
    }
    if let Some((_, what, remedy)) = REFUSED.iter().find(|(magic, _, _)| bytes.starts_with(magic)) {
        // "BZh" alone could begin a text.
        if *what != "compressed by bzip2" || bytes.get(4..10) == Some(b"1AY&SY") {
            return Err(refuse(path, what, remedy));
        }
    }
    if bytes.starts_with(b"\xFF\xFE\0\0") || bytes.starts_with(b"\0\0\xFE\xFF") {
        return Err(refuse(path, "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8 IN > OUT"));
    }
    match bytes.get(..2) {
        Some(b"\xFF\xFE") => return utf16(path, &bytes, u16::from_le_bytes),
        Some(b"\xFE\xFF") => return utf16(path, &bytes, u16::from_be_bytes),
        _ => {}
    }
    if let Some(encoding) = unmarked_utf16(&bytes) {
        let what = format!("{encoding} text without a byte order mark");
        return Err(refuse(path, &what, &format!("convert it: iconv -f {encoding} -t UTF-8 IN > OUT")));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| not_utf8(path, &error))?;
    if text.starts_with('\u{FEFF}') {
        text.drain(..'\u{FEFF}'.len_utf8());
    }
    Ok(text)
}

fn unpack(path: &Path, bytes: &[u8], most: u64) -> Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(bytes).take(most).read_to_end(&mut unpacked).map_err(|error| {
        refuse(
            path,
            &format!("a damaged gzip file ({error})"),
            "fetch it again; gunzip -t IN tests whether it is whole",
        )
    })?;
    if unpacked.len() as u64 == most {
        return Err(too_large(path, most));
    }
    Ok(unpacked)
}

/// Refuses a file that unpacks to more than `most`, which is half of the available memory.
fn too_large(path: &Path, most: u64) -> DataError {
    let (most, available) = (capacity::shown(most), capacity::shown(most.saturating_mul(2)));
    let what =
        format!("a compressed file that holds more than {most}, half of the {available} of memory that are available");
    refuse(path, &what, "use fewer files, or a machine with more memory")
}

/// The most bytes that a compressed file may unpack to: a few of them can stand for any number. The other half is for what is made
/// of them.
fn most_unpacked() -> u64 {
    capacity::available().map_or(u64::MAX, |bytes| bytes / 2)
}

fn utf16(path: &Path, bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String> {
    let damaged = |at: usize| {
        let what = format!("UTF-16 text that is damaged at byte {at}");
        refuse(path, &what, "convert it and look there: iconv -c -f UTF-16 -t UTF-8 IN > OUT")
    };
    let units = bytes.get(2..).unwrap_or_default().chunks_exact(2);
    if !units.remainder().is_empty() {
        return Err(damaged(bytes.len() - 1));
    }
    let (mut text, mut at) = (String::with_capacity(bytes.len() / 2), 2);
    for character in char::decode_utf16(units.map(|pair| unit([pair[0], pair[1]]))) {
        let character = character.map_err(|_| damaged(at))?;
        at += 2 * character.len_utf16();
        text.push(character);
    }
    Ok(text)
}

/// The byte order of UTF-16 text without a mark: every other one of the first bytes is zero, and the others are not.
fn unmarked_utf16(bytes: &[u8]) -> Option<&'static str> {
    let head = bytes.get(..bytes.len().min(64) & !1).filter(|head| head.len() >= 4)?;
    let zeros = |odd: usize| head.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    match (zeros(0), zeros(1)) {
        (0, high) if high * 2 == head.len() => Some("UTF-16LE"),
        (high, 0) if high * 2 == head.len() => Some("UTF-16BE"),
        _ => None,
    }
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> DataError {
    let (offset, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
    if let Some(zero) = bytes.iter().position(|byte| *byte == 0) {
        let what = format!("binary data and not text (a zero byte at offset {zero})");
        return refuse(path, &what, "choose the text files of a folder by a pattern such as \"texts/**/*.txt\"");
    }
    let byte = bytes.get(offset).copied().unwrap_or_default();
    let line = 1 + bytes.iter().take(offset).filter(|&&byte| byte == b'\n').count();
    DataError::NotUtf8 { path: path.to_owned(), byte, offset, line }
}

/// A file of a format that is not read. In `remedy`, `IN` stands for the file and `OUT` for one of JSON lines beside it.
pub(super) fn refuse(path: &Path, what: &str, remedy: &str) -> DataError {
    let (from, to) = (quoted(path), quoted(&lines_beside(path)));
    let remedy = remedy.split("IN").map(|piece| piece.replace("OUT", &to)).collect::<Vec<_>>().join(&from);
    DataError::Format { path: path.to_owned(), what: what.to_owned(), remedy }
}

/// `FILE > FILE.jsonl`, for a command that converts a file.
pub(super) fn from_to(path: &Path) -> String {
    format!("{} > {}", quoted(path), quoted(&lines_beside(path)))
}

/// The file's name with the ending `.jsonl`, in the current folder.
fn lines_beside(path: &Path) -> std::path::PathBuf {
    let mut name = path.to_owned();
    if name.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz")) {
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

/// Refuses rows, tables, pages and experiments where running text is to be measured.
///
/// # Errors
/// By the ending of the file's name, or by what the whole text is: JSON, lines of JSON, HTML, TOML.
pub fn check_running_text(path: &Path, text: &str) -> Result<()> {
    let to_rows = "`telos eval MODEL --rows IN` measures rows; for running text take it out (for example jq -r .text IN > text.txt)";
    let (what, remedy) = match ending(path).as_str() {
        "jsonl" | "ndjson" => ("a file of rows", to_rows),
        "json" => ("a file of JSON", to_rows),
        "csv" | "tsv" => ("a table", "make JSON lines of it for `telos eval MODEL --rows`, or take the text out of it"),
        "toml" | "yaml" | "yml" => ("a file of settings", TO_EXPERIMENT),
        "html" | "htm" => ("an HTML page", TO_TEXT),
        _ if are_rows(text) => ("a file of rows: every line is an object of JSON", to_rows),
        _ if are_lists(text) => ("a file of rows: every line is a list of JSON, or an object", to_rows),
        _ if is_json(text) => ("a file of JSON: one object or list", to_rows),
        _ if is_html(text) => ("an HTML page", TO_TEXT),
        _ if is_toml(text) => ("a file of settings: TOML", TO_EXPERIMENT),
        _ => return Ok(()),
    };
    Err(refuse(path, &format!("{what}, and its syntax would be measured too"), remedy))
}

const TO_EXPERIMENT: &str = "name the text that is to be measured; `telos check` tries an experiment, and `telos eval MODEL --rows` measures rows";
const TO_TEXT: &str = "take its text out, for example: python3 -c \"import bs4; print(bs4.BeautifulSoup(open('IN'), 'html.parser').get_text())\" > text.txt; \
     rows are measured by `telos eval MODEL --rows`";

/// Keys that only rows of training data have.
const ROW_KEYS: [&str; 14] = [
    "text",
    "content",
    "prompt",
    "completion",
    "messages",
    "conversations",
    "chosen",
    "rejected",
    "instruction",
    "output",
    "question",
    "answer",
    "response",
    "story",
];

/// Refuses a file of rows where running text is learned: its keys and brackets would be learned too.
///
/// # Errors
/// JSON lines whose first object has a key of rows: by the ending of the file's name, or since every line is an object of JSON.
pub fn check_learned_text(path: &Path, text: &str) -> Result<()> {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let has_row_keys = || {
        let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(first.trim()).unwrap_or_default();
        ROW_KEYS.iter().any(|key| row.contains_key(*key))
    };
    let is_lines = ["jsonl", "ndjson"].contains(&ending(path).as_str());
    // One torn line does not make a text of the others. Objects with other keys may be a file among code.
    if !(has_row_keys() && (is_lines || are_rows(text))) {
        return Ok(());
    }
    let remedy = "take the text out of it: jq -r .text IN > text.txt makes one document; a document for each row: mkdir texts && python3 -c \
                  \"import json; [open(f'texts/{i:08}.txt', 'w').write(json.loads(row)['text']) for i, row in enumerate(open('IN'))]\", \
                  with path = \"texts\"; rows with prompts are read by data.source = \"jsonl\"";
    Err(refuse(path, "a file of rows, and not running text: its keys and brackets would be learned too", remedy))
}

/// The ending of a file's name in lower case, before `.gz`.
fn ending(path: &Path) -> String {
    let mut name = path.to_owned();
    if name.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz")) {
        name.set_extension("");
    }
    name.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Whether every line is an object of JSON.
fn are_rows(text: &str) -> bool {
    every_line(text, |line| {
        line.starts_with('{') && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line).is_ok()
    })
}

/// Whether every line is an object or a list of JSON, and there are several.
fn are_lists(text: &str) -> bool {
    text.trim().contains('\n') && every_line(text, |line| line.starts_with(['{', '[']) && is_json(line))
}

fn every_line(text: &str, is_fitting: impl Fn(&str) -> bool) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    lines.peek().is_some() && lines.all(is_fitting)
}

/// Whether the whole text is one object of JSON, or one list with an object, a list or a string in it. `[1]` may be a footnote.
fn is_json(text: &str) -> bool {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(_)) => true,
        Ok(serde_json::Value::Array(list)) => {
            list.iter().any(|value| value.is_object() || value.is_array() || value.is_string())
        }
        _ => false,
    }
}

/// Whether the text begins as a page of HTML does.
pub(super) fn is_html(text: &str) -> bool {
    let head: String = text.trim_start().chars().take(15).flat_map(char::to_lowercase).collect();
    ["<!doctype html", "<html", "<head>", "<body"].iter().any(|opening| head.starts_with(opening))
}

/// Whether the whole text is TOML with a table and a value in it. Comments alone may be headings, headers of tables alone
/// footnotes, and values alone lines of code.
fn is_toml(text: &str) -> bool {
    text.contains('=')
        && text.lines().any(|line| line.starts_with('['))
        && toml::from_str::<toml::Table>(text).is_ok_and(|table| !table.is_empty())
}
