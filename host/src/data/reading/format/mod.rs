//! Reads the text of a file, whatever its compression or encoding; the error for an unsupported format names the
//! format.
//!
//! | bytes | read as |
//! |---|---|
//! | UTF-8, with or without a byte order mark | itself; the mark is not part of the data |
//! | UTF-16 with a byte order mark | its text |
//! | gzip | its content |
//! | Parquet | rows: a line of JSON for each; see [`parquet`] |
//! | a Git LFS pointer, other archives, UTF-16 without a mark, binary data | refused, with the line that fetches or converts it |

mod limit;
pub mod parquet;
pub mod refusal;
pub mod running_text;

use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::foreign::is_lfs_pointer;
use crate::data::error::{DataError, Result};
use limit::{most_unpacked, too_large};
use refusal::refuse;

/// What the text of a file is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Running text.
    Text,
    /// Rows.
    Rows,
}

/// Unsupported formats: first bytes, name, and the command that converts `IN`.
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
        "convert it to JSON lines: python3 -c \"import pandas; pandas.read_feather('IN').to_json('OUT', orient='records', lines=True)\"",
    ),
    (
        b"\xFF\xFF\xFF\xFF",
        "an Arrow stream, as the library datasets saves it",
        "convert it to JSON lines: python3 -c \"import datasets; datasets.Dataset.from_file('IN').to_json('OUT')\"",
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

/// Returns the text of a file with these bytes.
///
/// # Errors
/// An unsupported format, with the command that converts it; bytes that are not text.
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
        // "BZh" alone could be the beginning of a text.
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
            "download it again; gunzip -t IN tests whether it is complete",
        )
    })?;
    if unpacked.len() as u64 == most {
        return Err(too_large(path, most));
    }
    Ok(unpacked)
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
