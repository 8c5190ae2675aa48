//! Reads the rows of a Parquet file as lines of JSON. Supported are no compression and Snappy, which most published
//! data sets use.

use std::path::Path;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::limit::{most_unpacked, too_large};
use super::refusal::refuse;
use crate::data::error::Result;
use crate::data::reading::guard;

/// What every Parquet file begins with.
pub const MAGIC: &[u8] = b"PAR1";

/// The command that converts to JSON lines with another tool.
const TO_LINES: &str = "convert it to JSON lines: python3 -c \"import pandas; pandas.read_parquet('IN').to_json('OUT', orient='records', lines=True)\"";

/// The command that converts a column to running text.
pub const TO_TEXT: &str =
    "extract the text: python3 -c \"import pandas; print('\\n'.join(pandas.read_parquet('IN')['text']))\" > text.txt";

/// One line of JSON for each row, in order. NaN becomes null; bytes become base64.
///
/// # Errors
/// A damaged file, or an unsupported compression, with the command that converts it.
pub fn lines(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let most = most_unpacked();
    // The reader panics on some kinds of damage.
    let why = match guard::caught(|| read(bytes, most)) {
        Ok(Ok(Some(lines))) => return Ok(lines),
        Ok(Ok(None)) => return Err(too_large(path, most)),
        Ok(Err(ParquetError::NYI(what))) => format!("a Parquet file with an unsupported feature ({what})"),
        Ok(Err(error)) => format!("a Parquet file that cannot be read ({error})"),
        Err(_) => "a damaged Parquet file".to_owned(),
    };
    Err(refuse(path, &why, TO_LINES))
}

/// Returns the lines, or `None` if they are longer than `most` bytes.
fn read(bytes: Vec<u8>, most: u64) -> Result<Option<String>, ParquetError> {
    let mut lines = String::new();
    for row in SerializedFileReader::new(Bytes::from(bytes))?.get_row_iter(None)? {
        lines += &row?.to_json_value().to_string();
        lines.push('\n');
        if lines.len() as u64 > most {
            return Ok(None);
        }
    }
    Ok(Some(lines))
}
