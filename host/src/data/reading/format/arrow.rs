//! Reads the rows of Arrow's IPC formats as JSON, batch by batch: the file (Feather 2), and the stream that the library
//! datasets writes as its cache.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use serde_json::{Map, Number, Value};

use super::arrow_lengths::{Messages, check_file};
use super::limit::most_unpacked;
use super::refusal::refuse;
use crate::data::error::{DataError, Result};
use crate::data::reading::guard;

/// What a file of Arrow begins with.
pub const FILE: &[u8] = b"ARROW1\0\0";
/// What a stream of Arrow begins with.
pub const STREAM: &[u8] = b"\xFF\xFF\xFF\xFF";

/// Rows that are handed on at once.
const BLOCK: usize = 1024;

/// The command that converts to JSON lines with another tool.
const TO_LINES: &str = "write it again with pyarrow, or convert it to JSON lines: python3 -c \"import pandas; \
                        pandas.read_feather('IN').to_json('OUT', orient='records', lines=True)\" (a stream: python3 -c \
                        \"import datasets; datasets.Dataset.from_file('IN').to_json('OUT')\")";

/// Hands on the rows of a file in order, some at a time. Returns the names of the columns.
///
/// # Errors
/// A damaged file; a column of a type that has no JSON; errors of `take`.
pub fn file(path: &Path, file: File, take: &mut dyn FnMut(Vec<Value>) -> Result<()>) -> Result<Vec<String>> {
    let reader = guard::caught(|| {
        check_file(&file)?;
        FileReader::try_new(BufReader::new(file), None)
    });
    let reader = opened(path, reader)?;
    let schema = reader.schema();
    batches(path, schema, reader, take)
}

/// As [`file`], for a stream.
///
/// # Errors
/// Those of [`file`].
pub fn stream(path: &Path, bytes: impl Read, take: &mut dyn FnMut(Vec<Value>) -> Result<()>) -> Result<Vec<String>> {
    let reader = guard::caught(|| StreamReader::try_new(Messages::new(BufReader::new(bytes)), None));
    let reader = opened(path, reader)?;
    let schema = reader.schema();
    batches(path, schema, reader, take)
}

type Caught<T> = Result<Result<T, ArrowError>, String>;

fn opened<T>(path: &Path, reader: Caught<T>) -> Result<T> {
    reader.unwrap_or_else(|panic| Err(ArrowError::ParseError(panic))).map_err(|error| damaged(path, 0, &error))
}

fn damaged(path: &Path, read: usize, error: &ArrowError) -> DataError {
    let place = if read == 0 { String::new() } else { format!(" after row {read}") };
    refuse(path, &format!("an Arrow file that cannot be read{place} ({error})"), TO_LINES)
}

fn batches(
    path: &Path,
    schema: SchemaRef,
    mut reader: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    take: &mut dyn FnMut(Vec<Value>) -> Result<()>,
) -> Result<Vec<String>> {
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut read = 0;
    loop {
        let batch = guard::caught(|| reader.next());
        let batch = match batch {
            Ok(None) => return Ok(names),
            Ok(Some(Ok(batch))) => batch,
            Ok(Some(Err(error))) => return Err(damaged(path, read, &error)),
            Err(panic) => return Err(damaged(path, read, &ArrowError::ParseError(panic))),
        };
        // Null and dictionary columns can have any number of rows in no bytes.
        if batch.num_rows() as u64 > most_unpacked() / 64 {
            let what = format!("an Arrow file with a batch of {} rows, more than memory can hold", batch.num_rows());
            return Err(refuse(path, &what, "write it again in smaller batches"));
        }
        for begin in (0..batch.num_rows()).step_by(BLOCK) {
            let end = (begin + BLOCK).min(batch.num_rows());
            let block = guard::caught(|| (begin..end).map(|row| object(&names, &batch, row)).collect());
            let block: Result<Vec<Value>, String> =
                block.unwrap_or_else(|_| Err("with values that lie outside of it".to_owned()));
            let block = block.map_err(|what| {
                refuse(path, &format!("an Arrow file {what} (in a row from {} on)", read + 1), TO_LINES)
            })?;
            read += block.len();
            take(block)?;
        }
    }
}

fn object(names: &[String], batch: &RecordBatch, row: usize) -> Result<Value, String> {
    let mut object = Map::new();
    for (name, column) in names.iter().zip(batch.columns()) {
        let value = value(column, row).map_err(|what| format!("whose column `{name}` {what}"))?;
        if object.insert(name.clone(), value).is_some() {
            return Err(format!("with two columns `{name}`"));
        }
    }
    Ok(Value::Object(object))
}

/// The value of an array at `at`.
fn value(array: &dyn Array, at: usize) -> Result<Value, String> {
    if array.is_null(at) || matches!(array.data_type(), DataType::Null) {
        return Ok(Value::Null);
    }
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    let list = |list: &dyn Array| (0..list.len()).map(|at| value(list, at)).collect::<Result<Vec<_>, _>>();
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(at).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(at).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(at).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(at).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(at).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(at).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(at).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(at).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(at).into(),
        DataType::Float16 => float(array.as_primitive::<Float16Type>().value(at).to_f64()),
        // As its shortest decimals, so that 0.1 in 32 bits is 0.1.
        DataType::Float32 => {
            float(array.as_primitive::<Float32Type>().value(at).to_string().parse().unwrap_or(f64::NAN))
        }
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(at)),
        DataType::Utf8 => array.as_string::<i32>().value(at).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(at).into(),
        DataType::Utf8View => array.as_string_view().value(at).into(),
        DataType::List(_) => list(&array.as_list::<i32>().value(at))?.into(),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(at))?.into(),
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(at))?.into(),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let entries = columns.map(|(field, column)| Ok((field.name().clone(), value(column, at)?)));
            Value::Object(entries.collect::<Result<Map<_, _>, String>>()?)
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(at);
            let (keys, values) = (list(entries.column(0))?, list(entries.column(1))?);
            let key = |key: Value| key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            Value::Object(keys.into_iter().map(key).zip(values).collect())
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            match value(dictionary.keys(), at)?.as_u64().and_then(|key| usize::try_from(key).ok()) {
                Some(key) if key < dictionary.values().len() => value(dictionary.values(), key)?,
                _ => return Err("has a key outside of its dictionary".to_owned()),
            }
        }
        other => return Err(format!("has the type {other}, which is not read")),
    })
}
