//! Reads the rows of Arrow's IPC formats as JSON, batch by batch: the file (Feather 2), and the stream that the library
//! datasets writes as its cache.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, Fields, SchemaRef, TimeUnit};
use serde_json::{Map, Number, Value};

use super::arrow_lengths::{CutOff, Messages, check_file};
use super::limit::most_unpacked;
use super::record::{self, Record, twice};
use super::refusal::refuse;
use crate::data::error::{DataError, Result};
use crate::data::reading::guard;

/// What a file of Arrow begins with.
pub const FILE: &[u8] = b"ARROW1\0\0";
/// What a stream of Arrow begins with.
pub const STREAM: &[u8] = b"\xFF\xFF\xFF\xFF";

/// Rows that are handed on at once.
const BLOCK: usize = 1024;

/// How to get a file that can be read.
const AGAIN: &str = "download or copy it again, or write it again with pyarrow";

/// Hands on the rows of a file in order, some at a time. Returns the names of the columns.
///
/// # Errors
/// A damaged file, or one that is cut off, with the row after which it is; two columns of one name; errors of `take`.
pub fn file(path: &Path, file: File, take: &mut dyn FnMut(Vec<Record>) -> Result<()>) -> Result<Vec<String>> {
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
pub fn stream(path: &Path, bytes: impl Read, take: &mut dyn FnMut(Vec<Record>) -> Result<()>) -> Result<Vec<String>> {
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
    if let ArrowError::IoError(_, error) = error
        && error.get_ref().is_some_and(|error| error.is::<CutOff>())
    {
        let place = if read == 0 { "before the end of its first rows".to_owned() } else { format!("after row {read}") };
        return refuse(path, &format!("an Arrow file that is cut off {place}"), "download or copy it again");
    }
    let place = if read == 0 { String::new() } else { format!(" after row {read}") };
    refuse(path, &format!("an Arrow file that cannot be read{place} ({error})"), AGAIN)
}

/// The first name that two columns have, or two fields of a column.
fn same_name(fields: &Fields, within: &str) -> Option<String> {
    let own = twice(fields.iter().map(|field| field.name().as_str())).map(|name| format!("{within}{name}"));
    own.or_else(|| fields.iter().find_map(|field| in_type(field.data_type(), &format!("{within}{}.", field.name()))))
}

fn in_type(of: &DataType, within: &str) -> Option<String> {
    match of {
        DataType::Struct(fields) => same_name(fields, within),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => in_type(field.data_type(), within),
        DataType::Dictionary(_, values) => in_type(values, within),
        _ => None,
    }
}

fn batches(
    path: &Path,
    schema: SchemaRef,
    mut reader: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    take: &mut dyn FnMut(Vec<Record>) -> Result<()>,
) -> Result<Vec<String>> {
    if let Some(name) = same_name(schema.fields(), "") {
        return Err(refuse(path, &format!("an Arrow file with two columns `{name}`"), "rename one"));
    }
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
            let block = guard::caught(|| (begin..end).map(|row| record(&names, &batch, row)).collect());
            let block: Result<Vec<Record>, String> =
                block.unwrap_or_else(|_| Err("with values that lie outside of it".to_owned()));
            let block = block.map_err(|what| {
                refuse(path, &format!("an Arrow file {what} (in a row from {} on)", read + 1), AGAIN)
            })?;
            read += block.len();
            take(block)?;
        }
    }
}

fn record(names: &[String], batch: &RecordBatch, row: usize) -> Result<Record, String> {
    let mut record = Record::default();
    for (name, column) in names.iter().zip(batch.columns()) {
        match value(column, row) {
            Err(Fault::Damaged(what)) => return Err(format!("whose column `{name}` {what}")),
            Err(Fault::Unreadable(what)) => record.add(name, Err(what)),
            Ok(value) => record.add(name, Ok(value)),
        }
    }
    Ok(record)
}

/// Why a value cannot be read.
enum Fault {
    /// It has no JSON.
    Unreadable(String),
    /// The file is wrong.
    Damaged(String),
}

/// The value of an array at `at`. What has no JSON of its own (dates, times, decimals) is written as in a Parquet file.
fn value(array: &dyn Array, at: usize) -> Result<Value, Fault> {
    if array.is_null(at) || matches!(array.data_type(), DataType::Null) {
        return Ok(Value::Null);
    }
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    let list = |list: &dyn Array| (0..list.len()).map(|at| value(list, at)).collect::<Result<Vec<_>, _>>();
    let text = |bytes: &[u8]| record::text(bytes).map_err(Fault::Unreadable);
    /// As a date or time, or null if it is beyond the calendar.
    macro_rules! moment {
        ($Type:ty, $as:ident, $form:literal) => {
            array.as_primitive::<$Type>().$as(at).map_or(Value::Null, |moment| moment.format($form).to_string().into())
        };
    }
    macro_rules! integer {
        ($Type:ty) => {
            array.as_primitive::<$Type>().value(at).into()
        };
    }
    macro_rules! decimal {
        ($Type:ty) => {
            array.as_primitive::<$Type>().value_as_string(at).into()
        };
    }
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(at).into(),
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::UInt8 => integer!(UInt8Type),
        DataType::UInt16 => integer!(UInt16Type),
        DataType::UInt32 => integer!(UInt32Type),
        DataType::UInt64 => integer!(UInt64Type),
        DataType::Float16 => float(array.as_primitive::<Float16Type>().value(at).to_f64()),
        // As its shortest decimals, so that 0.1 in 32 bits is 0.1.
        DataType::Float32 => {
            float(array.as_primitive::<Float32Type>().value(at).to_string().parse().unwrap_or(f64::NAN))
        }
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(at)),
        DataType::Decimal32(..) => decimal!(Decimal32Type),
        DataType::Decimal64(..) => decimal!(Decimal64Type),
        DataType::Decimal128(..) => decimal!(Decimal128Type),
        DataType::Decimal256(..) => decimal!(Decimal256Type),
        DataType::Date32 => moment!(Date32Type, value_as_date, "%Y-%m-%d"),
        DataType::Date64 => moment!(Date64Type, value_as_date, "%Y-%m-%d"),
        DataType::Time32(TimeUnit::Millisecond) => moment!(Time32MillisecondType, value_as_time, "%H:%M:%S%.3f"),
        DataType::Time32(_) => moment!(Time32SecondType, value_as_time, "%H:%M:%S"),
        DataType::Time64(TimeUnit::Microsecond) => moment!(Time64MicrosecondType, value_as_time, "%H:%M:%S%.6f"),
        DataType::Time64(_) => moment!(Time64NanosecondType, value_as_time, "%H:%M:%S%.9f"),
        DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => moment!(TimestampSecondType, value_as_datetime, "%Y-%m-%d %H:%M:%S +00:00"),
            TimeUnit::Millisecond => {
                moment!(TimestampMillisecondType, value_as_datetime, "%Y-%m-%d %H:%M:%S%.3f +00:00")
            }
            TimeUnit::Microsecond => {
                moment!(TimestampMicrosecondType, value_as_datetime, "%Y-%m-%d %H:%M:%S%.6f +00:00")
            }
            TimeUnit::Nanosecond => {
                moment!(TimestampNanosecondType, value_as_datetime, "%Y-%m-%d %H:%M:%S%.9f +00:00")
            }
        },
        DataType::Duration(unit) => match unit {
            TimeUnit::Second => integer!(DurationSecondType),
            TimeUnit::Millisecond => integer!(DurationMillisecondType),
            TimeUnit::Microsecond => integer!(DurationMicrosecondType),
            TimeUnit::Nanosecond => integer!(DurationNanosecondType),
        },
        DataType::Utf8 => array.as_string::<i32>().value(at).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(at).into(),
        DataType::Utf8View => array.as_string_view().value(at).into(),
        DataType::Binary => text(array.as_binary::<i32>().value(at))?,
        DataType::LargeBinary => text(array.as_binary::<i64>().value(at))?,
        DataType::BinaryView => text(array.as_binary_view().value(at))?,
        DataType::FixedSizeBinary(_) => text(array.as_fixed_size_binary().value(at))?,
        DataType::List(_) => list(&array.as_list::<i32>().value(at))?.into(),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(at))?.into(),
        DataType::ListView(_) => list(&array.as_list_view::<i32>().value(at))?.into(),
        DataType::LargeListView(_) => list(&array.as_list_view::<i64>().value(at))?.into(),
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(at))?.into(),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let entries = columns.map(|(field, column)| Ok((field.name().clone(), value(column, at)?)));
            Value::Object(entries.collect::<Result<Map<_, _>, Fault>>()?)
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
                _ => return Err(Fault::Damaged("has a key outside of its dictionary".to_owned())),
            }
        }
        other => {
            return Err(Fault::Unreadable(format!(
                "has the type {other}, which is not read: cast it to text or numbers when the file is written, or drop the column"
            )));
        }
    })
}
