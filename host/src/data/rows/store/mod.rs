//! Many rows, kept as bytes and not as values: in memory as long as they are few, and otherwise on disk, so that a data
//! set may be larger than memory. Every row can be read by its number.
//!
//! | what | file |
//! |---|---|
//! | rows on both sides of the split | [`corpus`] |
//! | the rows of several sets | [`every`] |
//! | bytes in memory or in a file | [`log`], [`pieces`] |
//! | what the columns hold | [`survey`] |

pub mod corpus;
pub mod every;
pub mod log;
pub mod pieces;
pub mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::data::error::{DataError, Result};
use crate::data::place::Place;
use crate::data::rows::kind::Part;
use crate::data::rows::message::Message;
use crate::data::rows::row::{Content, Row};
use log::Log;
use survey::Survey;

/// About this many bytes of rows are read at once.
const BLOCK_BYTES: u64 = 1 << 21;

/// Rows in order.
#[derive(Debug, Default)]
pub struct Rows {
    log: Log,
    places: Vec<Spot>,
    files: Vec<Arc<str>>,
    survey: Survey,
}

/// Where a row begins in the log, its length, and the number of its source.
#[derive(Clone, Copy, Debug)]
struct Spot {
    begin: u64,
    length: u32,
    source: u16,
}

/// A row as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    line: usize,
    parts: Vec<(u8, KeptContent)>,
    columns: Map<String, Value>,
    segments: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KeptContent {
    Text(String),
    Messages(Vec<Message>),
}

const PARTS: [Part; 5] = [Part::Messages, Part::Prompt, Part::Completion, Part::Chosen, Part::Rejected];

/// A row, and the bytes that keep it.
pub struct Packed {
    row: Row,
    bytes: Vec<u8>,
    source: u16,
}

impl Packed {
    /// Packs a row.
    ///
    /// # Errors
    /// A row whose values are nested so deeply that it could not be read again.
    pub fn of(row: Row) -> Result<Packed> {
        if let Some(key) = too_deep(&row) {
            let what = format!("nested more than {MOST_DEPTH} levels deep; write it as a string of JSON, or remove it");
            return Err(DataError::Json { place: row.place, key, what });
        }
        let number = |part: Part| PARTS.iter().position(|own| *own == part).unwrap_or_default() as u8;
        let content = |content: &Content| match content {
            Content::Text(text) => KeptContent::Text(text.clone()),
            Content::Messages(messages) => KeptContent::Messages(messages.clone()),
        };
        let Row { place, parts, columns, segments } = &row;
        let parts = parts.iter().map(|(part, own)| (number(*part), content(own))).collect();
        let kept = Kept { line: place.line, parts, columns: columns.clone(), segments: segments.clone() };
        let bytes = serde_json::to_vec(&kept).map_err(|error| unreadable(&error))?;
        Ok(Packed { row, bytes, source: 0 })
    }

    /// The same row as one of source number `source`.
    #[must_use]
    pub fn from_source(self, source: u16) -> Packed {
        Packed { source, ..self }
    }

    /// The row.
    pub fn row(&self) -> &Row {
        &self.row
    }
}

/// How deeply the values of a row may be nested: the library reads 127 levels, and the row itself has a few.
const MOST_DEPTH: usize = 100;

/// The column or part of a row that is nested more deeply.
fn too_deep(row: &Row) -> Option<String> {
    fn is_deeper(value: &Value, than: usize) -> bool {
        let Some(less) = than.checked_sub(1) else { return value.is_array() || value.is_object() };
        match value {
            Value::Array(list) => list.iter().any(|value| is_deeper(value, less)),
            Value::Object(object) => object.values().any(|value| is_deeper(value, less)),
            _ => false,
        }
    }
    let column = row.columns.iter().find(|(_, value)| is_deeper(value, MOST_DEPTH)).map(|(name, _)| name.clone());
    column.or_else(|| {
        let part = row.parts.iter().find(|(_, content)| match content {
            Content::Text(_) => false,
            Content::Messages(messages) => {
                messages.iter().flat_map(|message| message.values()).any(|value| is_deeper(value, MOST_DEPTH))
            }
        });
        part.map(|(part, _)| part.name().to_owned())
    })
}

fn unreadable(error: &serde_json::Error) -> DataError {
    DataError::Option(format!("a row cannot be kept or read again: {error}"))
}

impl Rows {
    /// Keeps `rows`.
    ///
    /// # Errors
    /// A full disk.
    pub fn of(rows: impl IntoIterator<Item = Row>) -> Result<Rows> {
        let mut kept = Rows::default();
        rows.into_iter().try_for_each(|row| kept.push(&Packed::of(row)?))?;
        Ok(kept)
    }

    /// Adds a row.
    ///
    /// # Errors
    /// A full disk.
    pub fn push(&mut self, packed: &Packed) -> Result<()> {
        self.survey.add(&packed.row);
        let file = &packed.row.place.file;
        // Rows come file after file, so the last one is almost always right.
        let known = self.files.iter().rposition(|own| Arc::ptr_eq(own, file) || own == file);
        let number = known.unwrap_or(self.files.len());
        if known.is_none() {
            self.files.push(file.clone());
        }
        let begin = self.log.end();
        self.log.append(&(number as u32).to_le_bytes())?;
        self.log.append(&packed.bytes)?;
        let length = u32::try_from(self.log.end() - begin).map_err(|_| DataError::Json {
            place: packed.row.place.clone(),
            key: String::new(),
            what: "longer than 4 GiB".into(),
        })?;
        self.places.push(Spot { begin, length, source: packed.source });
        Ok(())
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What their columns hold.
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// Row number `index`; `None` if there are fewer.
    ///
    /// # Errors
    /// A disk that cannot be read.
    pub fn get(&self, index: usize) -> Result<Option<Row>> {
        let Some(spot) = self.places.get(index) else { return Ok(None) };
        self.unpack(&self.log.read(spot.begin, spot.length as usize)?).map(Some)
    }

    /// The number of the source of row number `index`.
    pub fn source(&self, index: usize) -> u16 {
        self.places.get(index).map_or(0, |spot| spot.source)
    }

    /// As [`Rows::get`], in the middle of a step: see [`Log::read_again`].
    pub fn again(&self, index: usize) -> Option<Row> {
        self.get(index).unwrap_or_else(|error| error.raise())
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Row> {
        let (file, bytes) = bytes.split_at_checked(4).unwrap_or_default();
        let number = u32::from_le_bytes(file.try_into().unwrap_or_default()) as usize;
        let Kept { line, parts, columns, segments } =
            serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
        let content = |content| match content {
            KeptContent::Text(text) => Content::Text(text),
            KeptContent::Messages(messages) => Content::Messages(messages),
        };
        let part = |(number, own): (u8, KeptContent)| Some((*PARTS.get(usize::from(number))?, content(own)));
        let parts: BTreeMap<Part, Content> = parts.into_iter().filter_map(part).collect();
        let file = self.files.get(number).cloned().unwrap_or_else(|| "".into());
        Ok(Row { place: Place { file, line }, parts, columns, segments })
    }

    /// The rows in order, some at a time, each with its number.
    pub fn blocks(&self) -> impl Iterator<Item = Result<Vec<(usize, Row)>>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = self.places.get(at)?.begin;
            let full = |spot: &Spot| spot.begin - first >= BLOCK_BYTES;
            let count = self.places[at..].iter().position(full).unwrap_or(self.places.len() - at).max(1);
            let own = &self.places[at..at + count];
            let numbers = at..at + count;
            at += count;
            Some(self.block(own, numbers))
        })
    }

    fn block(&self, spots: &[Spot], numbers: std::ops::Range<usize>) -> Result<Vec<(usize, Row)>> {
        let begin = spots.first().map_or(0, |spot| spot.begin);
        let end = spots.last().map_or(0, |spot| spot.begin + u64::from(spot.length));
        let bytes = self.log.read(begin, (end - begin) as usize)?;
        let row = |(spot, number): (&Spot, usize)| {
            let from = (spot.begin - begin) as usize;
            Ok((number, self.unpack(bytes.get(from..from + spot.length as usize).unwrap_or_default())?))
        };
        spots.par_iter().zip(numbers.into_par_iter()).map(row).collect()
    }

    /// The rows in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Row>> {
        self.blocks().flat_map(|block| match block {
            Ok(rows) => rows.into_iter().map(|(_, row)| Ok(row)).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        })
    }

    /// All rows.
    #[cfg(test)]
    pub fn to_vec(&self) -> Vec<Row> {
        self.iter().collect::<Result<Vec<_>>>().unwrap()
    }

    /// Keeps only the rows for which `kept` is true; `kept` has a value for each.
    ///
    /// # Errors
    /// A disk that cannot be read.
    pub fn retain(&mut self, kept: &[bool]) -> Result<()> {
        let mut kept = kept.iter();
        self.places.retain(|_| kept.next().copied().unwrap_or(true));
        let mut survey = Survey::default();
        for block in self.blocks() {
            block?.iter().for_each(|(_, row)| survey.add(row));
        }
        self.survey = survey;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rows::{Columns, RowKind, read::jsonl};

    /// Catches a row that comes back changed: the order of keys, integers of more than 53 or 64 bits, floats, nulls, the place.
    #[test]
    fn rows_come_back_as_they_were() {
        let lines = concat!(
            r#"{"b": 9007199254740993, "prompt": "p\u0000\n", "completion": "ä", "a": [0.1, -0.0, 1e300], "n": null}"#,
            "\n\n",
            r#"{"messages": [{"role": "user", "content": "x", "id": 123456789012345678901234567890}, {"role": "assistant", "content": ""}]}"#,
            "\n",
            r#"{"prompt": "p", "completions": ["a", "bc"], "z": {"y": {"x": [true]}}}"#
        );
        let rows = jsonl::parse("f.jsonl".as_ref(), lines, RowKind::PromptCompletion, &Columns::new()).unwrap();
        assert_eq!(rows.len(), 3);
        let kept = Rows::of(rows.clone()).unwrap();
        assert_eq!(kept.iter().collect::<Result<Vec<_>>>().unwrap(), rows);
        assert_eq!(kept.get(1).unwrap().as_ref(), rows.get(1));
        assert!(kept.get(3).unwrap().is_none());
        let keys: Vec<String> = kept.get(0).unwrap().unwrap().columns.keys().cloned().collect();
        assert_eq!(keys, ["b", "a", "n"]);
    }

    /// Catches a row that is accepted at first and cannot be read again, because its values are nested more deeply than is read.
    #[test]
    fn rows_that_could_not_be_read_again_are_refused() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let chat = |depth| {
            let other = nested(depth);
            format!(
                r#"{{"messages": [{{"role": "user", "content": "x"}}, {{"role": "assistant", "content": "y", "z": {other}}}]}}"#
            )
        };
        let plain = |depth| format!(r#"{{"prompt": "p", "completion": "c", "z": {}}}"#, nested(depth));
        let kept = |line: String| {
            let rows = jsonl::parse("f.jsonl".as_ref(), &line, RowKind::PromptCompletion, &Columns::new())?;
            let kept = Rows::of(rows.clone())?;
            assert_eq!(kept.to_vec(), rows);
            Ok::<_, DataError>(())
        };
        for (key, line) in [("z", &plain as &dyn Fn(usize) -> String), ("messages", &chat)] {
            assert!(kept(line(MOST_DEPTH)).is_ok());
            let error = kept(line(MOST_DEPTH + 1)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("f.jsonl:1: `{key}`: nested more than 100 levels deep")), "{error}");
        }
    }
}
