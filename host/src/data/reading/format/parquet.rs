//! Reads the rows of a Parquet file as JSON, row group by row group.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::record::{self, Record, twice};
use super::refusal::refuse;
use crate::data::error::Result;
use crate::data::reading::guard;

/// What every Parquet file begins with.
pub const MAGIC: &[u8] = b"PAR1";

/// Rows that are handed on at once.
const BLOCK: usize = 1024;

/// The command that converts to JSON lines with another tool.
const TO_LINES: &str = "convert it to JSON lines: python3 -c \"import pandas; pandas.read_parquet('IN').to_json('OUT', orient='records', lines=True)\"";

/// How to get a file that can be read.
const AGAIN: &str = "download or copy it again";

/// How its rows are read, and the command that converts a column to running text.
pub const TO_TEXT: &str = "read its rows by data.source = \"jsonl\" (`telos eval MODEL --rows`); rows with the column `text` alone are \
                           learned as a whole; for running text: python3 -c \"import pandas; \
                           print('\\n'.join(pandas.read_parquet('IN')['text']))\" > text.txt";

/// Hands on the rows in order, some at a time. NaN becomes null. Returns the names of the columns.
///
/// # Errors
/// A file that is cut off; a damaged one, with the row after which reading failed; an unsupported feature, with the command that
/// converts the file; two columns of one name; errors of `take`.
pub fn rows(path: &Path, file: File, take: &mut dyn FnMut(Vec<Record>) -> Result<()>) -> Result<Vec<String>> {
    let mut read = 0;
    let refused = |read: usize, why: Option<ParquetError>| {
        let place = if read == 0 { String::new() } else { format!(" after row {read}") };
        let (what, remedy) = match why {
            Some(ParquetError::NYI(what)) => {
                (format!("a Parquet file with an unsupported feature ({what})"), TO_LINES.to_owned())
            }
            // The error does not tell damage from a feature.
            Some(error) => {
                (format!("a Parquet file that cannot be read{place} ({error})"), format!("{AGAIN}, or {TO_LINES}"))
            }
            None => (format!("a damaged Parquet file{place}"), AGAIN.to_owned()),
        };
        refuse(path, &what, &remedy)
    };
    if is_cut_off(&file) {
        let what = "a Parquet file that is cut off: its end, which says where the rows are, is missing";
        return Err(refuse(path, what, AGAIN));
    }
    // The reader panics on some kinds of damage.
    let reader = match guard::caught(|| SerializedFileReader::new(file)) {
        Ok(Ok(reader)) => reader,
        Ok(Err(error)) => return Err(refused(0, Some(error))),
        Err(_) => return Err(refused(0, None)),
    };
    let schema = reader.metadata().file_metadata().schema();
    if let Some(name) = same_name(schema, "") {
        return Err(refuse(path, &format!("a Parquet file with two columns `{name}`"), "rename one"));
    }
    let columns = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let mut rows = match guard::caught(|| reader.get_row_iter(None)) {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => return Err(refused(0, Some(error))),
        Err(_) => return Err(refused(0, None)),
    };
    loop {
        let block = guard::caught(|| {
            let block = rows.by_ref().take(BLOCK).map(|row| Ok(record(&row?)));
            block.collect::<Result<Vec<Record>, ParquetError>>()
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

/// Whether the file lacks what every Parquet file ends with: [`MAGIC`], or `PARE` if it is encrypted.
fn is_cut_off(mut file: &File) -> bool {
    let mut last = [0; 4];
    let read = file.seek(SeekFrom::End(-4)).and_then(|at| file.read_exact(&mut last).map(|()| at));
    // The mark at the beginning is not that at the end.
    read.map_or(true, |at| at < 8) || (last != *MAGIC && last != *b"PARE")
}

/// The first name that two columns have, or two fields of a column.
fn same_name(schema: &Type, within: &str) -> Option<String> {
    if !schema.is_group() {
        return None;
    }
    let fields = schema.get_fields();
    let own = twice(fields.iter().map(|field| field.name())).map(|name| format!("{within}{name}"));
    own.or_else(|| fields.iter().find_map(|field| same_name(field, &format!("{within}{}.", field.name()))))
}

fn record(row: &Row) -> Record {
    let mut record = Record::default();
    row.get_column_iter().for_each(|(name, field)| record.add(name, value(field)));
    record
}

fn value(field: &Field) -> Result<Value, String> {
    Ok(match field {
        Field::Bytes(bytes) => record::text(bytes.data())?,
        Field::Group(row) => {
            let entries = row.get_column_iter().map(|(name, field)| Ok((name.clone(), value(field)?)));
            Value::Object(entries.collect::<Result<Map<_, _>, String>>()?)
        }
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(value).collect::<Result<_, _>>()?),
        Field::MapInternal(map) => {
            let key = |key: Value| key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            let entries = map.entries().iter().map(|(name, field)| Ok((key(value(name)?), value(field)?)));
            Value::Object(entries.collect::<Result<Map<_, _>, String>>()?)
        }
        other => other.to_json_value(),
    })
}
