//! Reads tables of values separated by commas or tabs (CSV, TSV) as rows of JSON. The first line names the columns.
//!
//! A table has no types: a cell is text in the columns that hold text ([`Cells`]), a list of messages or tools where it
//! is written as JSON, and otherwise null if it is empty, a number or true or false if it is written as one, or else
//! text.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use csv::{ByteRecord, ReaderBuilder};
use serde_json::{Map, Value};

use super::limit::{most_unpacked, too_large_whole};
use super::quotes::{Fault, Quotes};
use super::refusal::refuse;
use crate::data::error::{DataError, Result};
use crate::data::place::Place;
use crate::decimals::counted;

/// A table's row: the line on which it begins, and its cells by column.
pub type Row = (usize, Value);

/// Rows that are handed on at once.
const BLOCK: usize = 1024;
/// Most columns of a table.
const MOST_COLUMNS: usize = 10_000;

/// The separator of a table's columns, recognized by the file's name, or because its first two lines hold words and
/// the same number of separators. `head`: how the text begins.
pub fn separator(path: &Path, head: &str) -> Option<char> {
    let name = path.to_string_lossy().to_lowercase();
    let name = [".gz", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    if head.trim_start().starts_with(['{', '[']) {
        return None;
    }
    if name.ends_with(".csv") {
        return Some(',');
    }
    if name.ends_with(".tsv") {
        return Some('\t');
    }
    let mut lines = head.lines().filter(|line| !line.trim().is_empty());
    let (first, second) = (lines.next()?, lines.next()?);
    let words = first.chars().all(|c| c.is_alphanumeric() || matches!(c, ',' | '\t' | '_' | '-' | ' ' | '"'));
    ['\t', ','].into_iter().find(|c| {
        let count = |line: &str| line.matches(*c).count();
        words && count(first) > 0 && count(second) >= count(first)
    })
}

/// Hands on the rows in order, some at a time. Returns the names of the columns. `has_carriage_returns`: lines end with both
/// a carriage return and a line feed.
///
/// # Errors
/// A line with another number of cells than the first, with both; text that is not UTF-8, with line and column; a quotation mark
/// that is not closed, with its line; a row without an end; errors of `take`.
pub fn rows(
    path: &Path,
    bytes: impl Read,
    separator: char,
    has_carriage_returns: bool,
    cells_of: impl Fn(&str) -> Cells,
    take: &mut dyn FnMut(Vec<Row>) -> Result<()>,
) -> Result<Vec<String>> {
    let most = most_unpacked();
    let since = Rc::new(Cell::new(0));
    let fault: Rc<Cell<Option<Fault>>> = Rc::default();
    let bytes = Quotes::new(Bounded { bytes, since: since.clone(), most }, separator as u8, fault.clone());
    let mut reader =
        ReaderBuilder::new().delimiter(separator as u8).has_headers(false).flexible(true).from_reader(bytes);
    let name = if separator == '\t' { "TSV" } else { "CSV" };
    let mut record = ByteRecord::new();
    let mut next = |record: &mut ByteRecord| -> Result<bool> {
        since.set(0);
        let line = reader.position().line();
        reader.read_byte_record(record).map_err(|error| match (error.into_kind(), fault.get()) {
            (_, Some(fault)) => unbalanced(path, fault),
            (csv::ErrorKind::Io(error), None) if error.kind() == io::ErrorKind::OutOfMemory => {
                let what = format!("a table ({name}) with a row, from line {line} on,");
                too_large_whole(path, &what, most, "close the quotation mark that is open there")
            }
            (csv::ErrorKind::Io(error), None) => {
                refuse(path, &format!("a damaged file ({error})"), "download it again")
            }
            (other, None) => refuse(path, &format!("a table ({name}) that cannot be read: {other:?}"), "correct it"),
        })
    };
    let place = |line: u64| Place { file: path.display().to_string().into(), line: line as usize };
    // The library ends a row at the carriage return, and counts the line break behind it to the next row.
    let before = Cell::new(0);
    let line_of = |record: &ByteRecord| before.get() + record.position().map_or(1, csv::Position::line);
    let refuse_row = |record: &ByteRecord, key: &str, what: String| {
        Err(DataError::Json { place: place(line_of(record)), key: key.to_owned(), what })
    };
    if !next(&mut record)? {
        return Ok(Vec::new());
    }
    match record.iter().collect::<Vec<_>>().as_slice() {
        [only] => check_separator(path, &String::from_utf8_lossy(only), separator)?,
        // The separator that it names is that of the file.
        [first, b""] => check_separator_line(path, &String::from_utf8_lossy(first))?,
        _ => {}
    }
    if record.len() > MOST_COLUMNS {
        return refuse_row(&record, "", format!("{} columns; a table may have {MOST_COLUMNS}", record.len()));
    }
    let mut columns: Vec<String> = Vec::new();
    for (index, cell) in record.iter().enumerate() {
        let cell = if index == 0 { cell.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(cell) } else { cell };
        // pandas writes its index as a column without a name.
        let column = match std::str::from_utf8(cell).map(str::trim) {
            Ok("") => format!("column {}", index + 1),
            Ok(column) => column.to_owned(),
            Err(_) => return refuse_row(&record, "", format!("the name of column {} is not UTF-8", index + 1)),
        };
        if columns.contains(&column) {
            return refuse_row(&record, &column, "two columns have this name; rename one".to_owned());
        }
        columns.push(column);
    }
    before.set(u64::from(has_carriage_returns));
    let cells: Vec<Cells> = columns.iter().map(|column| cells_of(column)).collect();
    let mut block = Vec::new();
    while next(&mut record)? {
        if record.len() != columns.len() {
            let what = format!(
                "{}, and the first line has {}: put cells that contain the separator, quotation marks or line breaks in \
                 quotation marks",
                counted(record.len(), "cell"),
                columns.len()
            );
            return refuse_row(&record, "", what);
        }
        let mut row = Map::new();
        for ((column, cells), bytes) in columns.iter().zip(&cells).zip(&record) {
            let text = match std::str::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => {
                    let what = format!("not UTF-8 text, from byte {} of the cell on", error.valid_up_to());
                    return refuse_row(&record, column, what);
                }
            };
            match cell(text, *cells) {
                Ok(value) => drop(row.insert(column.clone(), value)),
                Err(what) => return refuse_row(&record, column, what),
            }
        }
        block.push((line_of(&record) as usize, Value::Object(row)));
        if block.len() == BLOCK {
            take(std::mem::take(&mut block))?;
        }
    }
    take(block)?;
    Ok(columns)
}

/// Refuses a first line that names the separator.
fn check_separator_line(path: &Path, line: &str) -> Result<()> {
    if !line.trim_start_matches('\u{FEFF}').trim().to_lowercase().starts_with("sep=") {
        return Ok(());
    }
    let what = "a table whose first line names the separator, as Excel writes it, and not the columns";
    Err(refuse(path, what, "remove that line, and separate the columns by commas (tabs: name the file .tsv)"))
}

/// Refuses a first line that other separators divide into columns.
fn check_separator(path: &Path, line: &str, separator: char) -> Result<()> {
    check_separator_line(path, line)?;
    let Some(other) = [';', '\t', ','].into_iter().find(|other| *other != separator && line.contains(*other)) else {
        return Ok(());
    };
    let named = |separator: char| match separator {
        ';' => "semicolons",
        '\t' => "tabs",
        _ => "commas",
    };
    let what = format!("a table whose columns are separated by {}; {} are expected", named(other), named(separator));
    let remedy = match other {
        ';' => {
            "convert it to JSON lines: python3 -c \"import pandas; pandas.read_csv('IN', sep=';').to_json('OUT', \
             orient='records', lines=True)\""
        }
        '\t' => "name the file .tsv",
        _ => "name the file .csv",
    };
    Err(refuse(path, &what, remedy))
}

/// What the cells of a column hold. A table does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cells {
    /// Text, or messages as JSON.
    Text,
    /// A list of texts as JSON.
    List,
    /// Numbers, truth values, text or objects: what a cell looks like.
    Any,
}

/// A list of texts that is written as JSON.
fn list_of_texts(text: &str) -> Option<Value> {
    let list: Value = text.starts_with('[').then(|| serde_json::from_str(text).ok())??;
    list.as_array().is_some_and(|list| list.iter().all(Value::is_string)).then_some(list)
}

/// The error for quotation marks that are not closed, or not where the cell ends.
fn unbalanced(path: &Path, fault: Fault) -> DataError {
    let remedy = "a cell that contains quotation marks, separators or line breaks begins and ends with one, and each within it is \
                  written twice";
    let what = match fault.within {
        None => format!("a quotation mark opens a cell here and is not closed before the end of the file: {remedy}"),
        Some(line) => {
            format!(
                "a quotation mark opens a cell here, and text follows the one that closes it in line {line}: {remedy}"
            )
        }
    };
    DataError::Json {
        place: Place { file: path.display().to_string().into(), line: fault.opened },
        key: String::new(),
        what,
    }
}

fn cell(text: &str, cells: Cells) -> Result<Value, String> {
    if cells == Cells::List
        && let Some(list) = list_of_texts(text)
    {
        return Ok(list);
    }
    if text.starts_with("[{'") || text.starts_with("[{\\'") {
        return Err("a list in Python's notation; write it as JSON: frame[column].map(json.dumps)".to_owned());
    }
    if text.starts_with("[{") || text.starts_with("{\"") {
        // Only a list of objects, or one of its objects, can be meant; other text stays text.
        if let Ok(value @ (Value::Array(_) | Value::Object(_))) = serde_json::from_str(text) {
            return Ok(value);
        }
    }
    if cells == Cells::Text {
        return Ok(text.into());
    }
    Ok(match text {
        "" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        _ => {
            let exact =
                |number: &serde_json::Number| number.is_i64() || number.is_u64() || text.contains(['.', 'e', 'E']);
            serde_json::from_str::<serde_json::Number>(text)
                .ok()
                .filter(exact)
                .map_or_else(|| text.into(), Value::Number)
        }
    })
}

/// Reads at most about `most` bytes since the last time that `since` was set to 0, so that a row has an end.
struct Bounded<R> {
    bytes: R,
    since: Rc<Cell<u64>>,
    most: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since.get() > self.most {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let read = self.bytes.read(buffer)?;
        self.since.set(self.since.get() + read as u64);
        Ok(read)
    }
}
