//! The source `jsonl`: files with one JSON object a line.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::split::{Split, split};
use super::{ASSISTANT, Content, Message, Part, Place, Row, RowCorpus, Shape, role};
use crate::data::text::{TextFile, check_disjoint, read_files};
use crate::data::{DataError, Result};

/// Where rows come from and how they are split.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOptions {
    /// Files, folders or patterns, as written.
    pub paths: Vec<String>,
    /// Files to evaluate on, in the same forms; where there are any, `split` does not count.
    pub eval_paths: Vec<String>,
    /// How rows are held out.
    pub split: Split,
}

impl RowOptions {
    /// Reads, checks and splits the rows; each must have one of `shapes`.
    ///
    /// # Errors
    /// Files as for text; a line that is no object of these shapes, named with its key; a split that leaves a side empty.
    pub fn read(&self, shapes: &'static [Shape]) -> Result<RowCorpus> {
        let name = self.paths.join(", ");
        let train = read_files(&self.paths)?;
        let eval = if self.eval_paths.is_empty() { Vec::new() } else { read_files(&self.eval_paths)? };
        check_disjoint(&train, &eval)?;
        let sources = train.iter().chain(&eval).map(|file| file.source.clone()).collect();
        let rows = parse_files(&train, shapes)?;
        let sides = if eval.is_empty() {
            split(&name, rows, &self.split)?
        } else {
            super::split::apart(rows, parse_files(&eval, shapes)?)
        };
        if sides.train.is_empty() {
            return Err(DataError::Empty(name));
        }
        Ok(RowCorpus { name, train: sides.train, held_out: sides.held_out, leaks: sides.leaks, sources })
    }
}

fn parse_files(files: &[TextFile], shapes: &'static [Shape]) -> Result<Vec<Row>> {
    files
        .iter()
        .map(|file| parse(&file.source.path, &file.text, shapes))
        .collect::<Result<Vec<_>>>()
        .map(|f| f.concat())
}

/// The rows of a file. Empty lines are passed over.
///
/// # Errors
/// The first line that is no row of these shapes.
pub fn parse(path: &Path, text: &str, shapes: &'static [Shape]) -> Result<Vec<Row>> {
    let file: Arc<str> = path.display().to_string().into();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| row(Place { file: file.clone(), line: index + 1 }, line, shapes)).collect()
}

fn row(place: Place, line: &str, shapes: &'static [Shape]) -> Result<Row> {
    let mut columns = match serde_json::from_str(line) {
        Ok(Value::Object(columns)) => columns,
        Ok(other) => {
            return Err(refuse(&place, "", format!("{} where an object with the row's keys belongs", kind(&other))));
        }
        Err(error) => return Err(refuse(&place, "", format!("no JSON: {error}"))),
    };
    // A key that is there with null counts as one that is not there, as exporters of tables write it.
    let has = |part: &Part| columns.get(part.name()).is_some_and(|value| !value.is_null());
    let Some(shape) = shapes.iter().find(|shape| shape.iter().all(has)) else {
        return Err(no_shape(&place, &columns, shapes));
    };
    let mut parts = BTreeMap::new();
    for part in *shape {
        let value = columns.shift_remove(part.name()).unwrap_or_default();
        parts.insert(*part, content(&place, *part, value)?);
    }
    Ok(Row { place, parts, columns })
}

fn no_shape(place: &Place, columns: &Map<String, Value>, shapes: &[Shape]) -> DataError {
    let quoted =
        |names: Vec<&str>, between| names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(between);
    let wanted: Vec<String> =
        shapes.iter().map(|shape| quoted(shape.iter().map(|part| part.name()).collect(), " and ")).collect();
    let there =
        quoted(columns.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str()).collect(), ", ");
    refuse(place, "", format!("needs {}; it has {there}", wanted.join(", or ")))
}

fn content(place: &Place, part: Part, value: Value) -> Result<Content> {
    let key = part.name();
    match value {
        Value::String(text) if part != Part::Messages => Ok(Content::Text(text)),
        Value::Array(list) => {
            let messages: Vec<Message> = list
                .into_iter()
                .enumerate()
                .map(|(i, m)| message(place, &format!("{key}[{i}]"), m))
                .collect::<Result<_>>()?;
            let answers = messages.iter().any(|message| role(message) == ASSISTANT);
            match part {
                _ if messages.is_empty() => Err(refuse(place, key, "no message in the list".into())),
                Part::Messages | Part::Completion if !answers => Err(refuse(
                    place,
                    key,
                    format!("no message has the role \"{ASSISTANT}\": there is nothing to learn"),
                )),
                _ => Ok(Content::Messages(messages)),
            }
        }
        other if part == Part::Messages => {
            Err(refuse(place, key, format!("{} where a list of messages belongs", kind(&other))))
        }
        other => Err(refuse(place, key, format!("{} where a string or a list of messages belongs", kind(&other)))),
    }
}

fn message(place: &Place, key: &str, value: Value) -> Result<Message> {
    let Value::Object(message) = value else {
        return Err(refuse(place, key, format!("{} where a message with `role` and `content` belongs", kind(&value))));
    };
    if role(&message).is_empty() {
        return Err(refuse(place, &format!("{key}.role"), "missing or no string; for example \"user\"".into()));
    }
    match message.get("content") {
        // A message that only calls tools has no content; the template sees to that.
        Some(Value::String(_) | Value::Null) => Ok(message),
        Some(other) => Err(refuse(place, &format!("{key}.content"), format!("{} where a string belongs", kind(other)))),
        None => Err(refuse(place, &format!("{key}.content"), "missing".into())),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn refuse(place: &Place, key: &str, what: String) -> DataError {
    DataError::Json { place: place.clone(), key: key.to_owned(), what }
}
