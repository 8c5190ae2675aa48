//! Reads the rows of a Parquet file as JSON, row group by row group.

use std::fs::File;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use super::refusal::refuse;
use crate::data::error::Result;
use crate::data::reading::guard;

/// What every Parquet file begins with.
pub const MAGIC: &[u8] = b"PAR1";

/// Rows that are handed on at once.
const BLOCK: usize = 1024;

/// The command that converts to JSON lines with another tool.
const TO_LINES: &str = "convert it to JSON lines: python3 -c \"import pandas; pandas.read_parquet('IN').to_json('OUT', orient='records', lines=True)\"";

/// How its rows are read, and the command that converts a column to running text.
pub const TO_TEXT: &str = "read its rows by data.source = \"jsonl\" (`telos eval MODEL --rows`); rows with the column `text` alone are \
                           learned as a whole; for running text: python3 -c \"import pandas; \
                           print('\\n'.join(pandas.read_parquet('IN')['text']))\" > text.txt";

/// Hands on the rows in order, some at a time. NaN becomes null; bytes become base64. Returns the names of the
/// columns.
///
/// # Errors
/// A damaged file, with the row after which reading failed, or an unsupported feature, with the command that converts
/// the file; errors of `take`.
pub fn rows(path: &Path, file: File, take: &mut dyn FnMut(Vec<Value>) -> Result<()>) -> Result<Vec<String>> {
    let mut read = 0;
    let refused = |read: usize, why: Option<ParquetError>| {
        let place = if read == 0 { String::new() } else { format!(" after row {read}") };
        let what = match why {
            Some(ParquetError::NYI(what)) => format!("a Parquet file with an unsupported feature ({what})"),
            Some(error) => format!("a Parquet file that cannot be read{place} ({error})"),
            None => format!("a damaged Parquet file{place}"),
        };
        refuse(path, &what, TO_LINES)
    };
    // The reader panics on some kinds of damage.
    let reader = match guard::caught(|| SerializedFileReader::new(file)) {
        Ok(Ok(reader)) => reader,
        Ok(Err(error)) => return Err(refused(0, Some(error))),
        Err(_) => return Err(refused(0, None)),
    };
    let fields = reader.metadata().file_metadata().schema().get_fields();
    let columns = fields.iter().map(|field| field.name().to_owned()).collect();
    let mut rows = match guard::caught(|| reader.get_row_iter(None)) {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => return Err(refused(0, Some(error))),
        Err(_) => return Err(refused(0, None)),
    };
    loop {
        let block = guard::caught(|| {
            let block = rows.by_ref().take(BLOCK).map(|row| Ok(row?.to_json_value()));
            block.collect::<Result<Vec<Value>, ParquetError>>()
        });
        match block {
            Ok(Ok(block)) if block.is_empty() => return Ok(columns),
            Ok(Ok(block)) => {
                read += block.len();
                take(block)?;
            }
            Ok(Err(error)) => return Err(refused(read, Some(error))),
            Err(_) => return Err(refused(read, None)),
        }
    }
}
