//! Reads the content of a file, whatever its compression or encoding; the error for an unsupported format names the
//! format.
//!
//! | bytes | read as | file |
//! |---|---|---|
//! | UTF-8, with or without a byte order mark | itself; the mark is not part of the data | |
//! | UTF-16 with a byte order mark | its text | |
//! | gzip, Zstandard | its content | [`packed`] |
//! | Parquet, Arrow | rows | [`parquet`], [`arrow`] and `arrow_lengths`, with [`record`] |
//! | CSV, TSV | rows | [`table`] and `quotes` |
//! | a Git LFS pointer, other archives, UTF-16 without a mark, binary data | refused, with the line that fetches or converts it | [`refusal`] |

pub mod arrow;
mod arrow_lengths;
pub mod limit;
pub mod packed;
pub mod parquet;
mod quotes;
pub mod record;
pub mod refusal;
pub mod running_text;
pub mod table;

use std::io::Read;
use std::path::Path;

use super::foreign::is_lfs_pointer;
use crate::data::error::{DataError, Result};
use limit::{most_unpacked, too_large};
use packed::Packing;
use refusal::refuse;

/// Unsupported formats: first bytes, name, and the command that converts `IN`.
const REFUSED: &[(&[u8], &str, &str)] = &[
    (b"PK\x03\x04", "a zip archive or an Office document", "unpack it: unzip IN"),
    (b"BZh", "compressed by bzip2", "unpack it: bzip2 -dk IN"),
    (b"\xFD7zXZ\0", "compressed by xz", "unpack it: xz -dk IN"),
    (b"\x04\x22\x4D\x18", "compressed by LZ4", "unpack it: lz4 -d IN"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive", "unpack it: 7z x IN"),
    (
        b"FEA1",
        "a file of Feather's first version",
        "convert it to JSON lines: python3 -c \"import pandas; pandas.read_feather('IN').to_json('OUT', orient='records', lines=True)\"",
    ),
    (
        b"SQLite format 3\0",
        "an SQLite database",
        "convert a table to JSON lines: sqlite3 -json IN \"select * from TABLE\" | jq -c '.[]' > OUT",
    ),
    (b"\x89HDF\r\n", "an HDF5 file", "convert it to JSON lines with h5py and json"),
    (b"\x93NUMPY", "a NumPy array", "convert it to JSON lines with numpy and json"),
    (b"%PDF-", "a PDF document", "extract its text: pdftotext IN"),
];

/// As [`parquet::TO_TEXT`], for an Arrow file.
const ARROW_TO_TEXT: &str = "read its rows by data.source = \"jsonl\" (`telos eval MODEL --rows`); rows with the column `text` alone are \
                             learned as a whole; for running text: python3 -c \"import datasets; \
                             print('\\n'.join(datasets.Dataset.from_file('IN')['text']))\" > text.txt";

/// Returns the running text of a file with these bytes.
///
/// # Errors
/// An unsupported format, with the command that converts it; rows; bytes that are not text.
pub fn text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let Some(packing) = Packing::of(&bytes) else { return plain(path, bytes) };
    let unpacked = unpack(path, packing, &bytes)?;
    packing.refuse_nested(path, &unpacked)?;
    plain(path, unpacked)
}

fn plain(path: &Path, bytes: Vec<u8>) -> Result<String> {
    if bytes.starts_with(parquet::MAGIC) {
        return Err(refuse(path, "a Parquet file, which holds rows and not running text", parquet::TO_TEXT));
    }
    if bytes.starts_with(arrow::FILE) || bytes.starts_with(arrow::STREAM) {
        return Err(refuse(path, "an Arrow file, which holds rows and not running text", ARROW_TO_TEXT));
    }
    check_head(path, &bytes)?;
    match utf16(path, &bytes) {
        Some(text) => text,
        None => utf8(path, bytes, 0, 0),
    }
}

/// Refuses a file that begins with the bytes of an unsupported format.
///
/// # Errors
/// Such a file, with the command that converts it.
pub fn check_head(path: &Path, bytes: &[u8]) -> Result<()> {
    if is_lfs_pointer(bytes) {
        return Err(DataError::LfsPointer(path.to_owned()));
    }
    if let Some((_, what, remedy)) = REFUSED.iter().find(|(magic, _, _)| bytes.starts_with(magic)) {
        // "BZh" alone could be the beginning of a text.
        if *what != "compressed by bzip2" || bytes.get(4..10) == Some(b"1AY&SY") {
            return Err(refuse(path, what, remedy));
        }
    }
    if bytes.starts_with(b"\xFF\xFE\0\0") || bytes.starts_with(b"\0\0\xFE\xFF") {
        return Err(refuse(path, "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8 IN > OUT"));
    }
    if let Some(encoding) = unmarked_utf16(bytes) {
        let what = format!("{encoding} text without a byte order mark");
        return Err(refuse(path, &what, &format!("convert it: iconv -f {encoding} -t UTF-8 IN > OUT")));
    }
    Ok(())
}

/// Whether a file that begins with `head` is UTF-16 text with a byte order mark.
pub fn is_utf16(head: &[u8]) -> bool {
    head.starts_with(b"\xFF\xFE") || head.starts_with(b"\xFE\xFF")
}

/// The text of bytes that begin with the byte order mark of UTF-16; `None` for others.
pub fn utf16(path: &Path, bytes: &[u8]) -> Option<Result<String>> {
    match bytes.get(..2) {
        Some(b"\xFF\xFE") => Some(decode_utf16(path, bytes, u16::from_le_bytes)),
        Some(b"\xFE\xFF") => Some(decode_utf16(path, bytes, u16::from_be_bytes)),
        _ => None,
    }
}

/// The text of bytes in UTF-8; a byte order mark at the beginning is left out. The file has `before` bytes and `lines` line ends
/// before them.
///
/// # Errors
/// Bytes that are not UTF-8, with their place in the file.
pub fn utf8(path: &Path, bytes: Vec<u8>, before: usize, lines: usize) -> Result<String> {
    let mut text = String::from_utf8(bytes).map_err(|error| not_utf8(path, &error, before, lines))?;
    if before == 0 && text.starts_with('\u{FEFF}') {
        text.drain(..'\u{FEFF}'.len_utf8());
    }
    Ok(text)
}

fn unpack(path: &Path, packing: Packing, bytes: &[u8]) -> Result<Vec<u8>> {
    packing.check_window(path, bytes)?;
    let (mut unpacked, most) = (Vec::new(), most_unpacked());
    let mut content = packing.unpacked(path, bytes)?.take(most);
    content.read_to_end(&mut unpacked).map_err(|error| packing.damaged(path, &error))?;
    if unpacked.len() as u64 == most {
        return Err(too_large(path, most));
    }
    Ok(unpacked)
}

fn decode_utf16(path: &Path, bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String> {
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

/// The byte order of UTF-16 text without a mark, which is recognized by its first bytes: every other one is zero,
/// and the rest are not.
fn unmarked_utf16(bytes: &[u8]) -> Option<&'static str> {
    let head = bytes.get(..bytes.len().min(64) & !1).filter(|head| head.len() >= 4)?;
    let zeros = |odd: usize| head.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    match (zeros(0), zeros(1)) {
        (0, high) if high * 2 == head.len() => Some("UTF-16LE"),
        (high, 0) if high * 2 == head.len() => Some("UTF-16BE"),
        _ => None,
    }
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error, before: usize, lines: usize) -> DataError {
    let (offset, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
    if let Some(zero) = bytes.iter().position(|byte| *byte == 0) {
        let what = format!("binary data and not text (a zero byte at offset {})", before + zero);
        return refuse(path, &what, "choose the text files of a folder by a pattern such as \"texts/**/*.txt\"");
    }
    let byte = bytes.get(offset).copied().unwrap_or_default();
    let line = lines + 1 + bytes.iter().take(offset).filter(|&&byte| byte == b'\n').count();
    DataError::NotUtf8 { path: path.to_owned(), byte, offset: before + offset, line }
}
