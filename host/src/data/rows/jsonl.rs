//! The source `jsonl`: files with one JSON object a line.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::kind::{LABEL, MARGIN};
use super::split::{Split, split};
use super::text::number;
use super::{ASSISTANT, Content, Message, Part, Place, Row, RowCorpus, RowKind, integers, pair, role};
use crate::data::text::{TextFile, check_disjoint, read_files};
use crate::data::{DataError, Result};

/// What the file calls the columns that have a meaning here: `prompt` = "question". The file's own column of that name, if
/// there is one, gives way.
pub type Columns = BTreeMap<String, String>;

/// Where rows come from and how they are split.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOptions {
    /// Files, folders or patterns, as written.
    pub paths: Vec<String>,
    /// Files to evaluate on, in the same forms; where there are any, `split` does not count.
    pub eval_paths: Vec<String>,
    /// How rows are held out.
    pub split: Split,
    /// Columns that have other names in the files.
    pub columns: Columns,
}

impl RowOptions {
    /// Reads, checks and splits the rows, which must be of that kind.
    ///
    /// # Errors
    /// Files as for text; a line that is no row of the kind, named with its key; a split that leaves a side empty.
    pub fn read(&self, kind: RowKind) -> Result<RowCorpus> {
        let name = self.paths.join(", ");
        let train = read_files(&self.paths)?;
        let eval = if self.eval_paths.is_empty() { Vec::new() } else { read_files(&self.eval_paths)? };
        check_disjoint(&train, &eval)?;
        let sources = train.iter().chain(&eval).map(|file| file.source.clone()).collect();
        let rows = self.parse_files(&train, kind)?;
        let sides = if eval.is_empty() {
            split(&name, rows, &self.split)?
        } else {
            super::split::apart(rows, self.parse_files(&eval, kind)?)
        };
        let asked = !self.eval_paths.is_empty() || matches!(self.split, Split::Column(_));
        for (side, purpose) in [(&sides.train, "train"), (&sides.held_out, "evaluate")] {
            if side.is_empty() && (purpose == "train" || asked) {
                return Err(DataError::NoRow { what: name, purpose });
            }
        }
        let every = sides.train.iter().chain(&sides.held_out);
        if let Some((key, written)) = self.columns.iter().find(|(key, _)| !every.clone().any(|row| row.has(key))) {
            return Err(DataError::NoColumn { what: name, written: written.clone(), key: key.clone() });
        }
        Ok(RowCorpus { name, kind, train: sides.train, held_out: sides.held_out, leaks: sides.leaks, sources })
    }

    fn parse_files(&self, files: &[TextFile], kind: RowKind) -> Result<Vec<Row>> {
        let rows = files.iter().map(|file| parse(&file.source.path, &file.text, kind, &self.columns));
        rows.collect::<Result<Vec<_>>>().map(|files| files.concat())
    }
}

/// The rows of a file. Empty lines are passed over.
///
/// # Errors
/// The first line that is no row of this kind.
pub fn parse(path: &Path, text: &str, kind: RowKind, columns: &Columns) -> Result<Vec<Row>> {
    let file: Arc<str> = path.display().to_string().into();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| row(Place { file: file.clone(), line: index + 1 }, line, kind, columns)).collect()
}

fn row(place: Place, line: &str, kind: RowKind, names: &Columns) -> Result<Row> {
    let mut columns = match serde_json::from_str(&integers::keep(line, names)) {
        Ok(Value::Object(columns)) => columns,
        Ok(other) => {
            return Err(refuse(&place, "", format!("{} where an object with the row's keys belongs", what(&other))));
        }
        Err(error) => return Err(refuse(&place, "", format!("no JSON: {error}"))),
    };
    rename(&mut columns, names);
    // A key that is there with null counts as one that is not there, as exporters of tables write it.
    let has = |part: &Part| columns.get(part.name()).is_some_and(|value| !value.is_null());
    let Some(shape) = kind.shapes().iter().find(|shape| shape.iter().all(has)) else {
        return Err(no_shape(&place, line, kind, names));
    };
    let mut parts = BTreeMap::new();
    for part in *shape {
        let value = columns.shift_remove(part.name()).unwrap_or_default();
        parts.insert(*part, content(&place, *part, value)?);
    }
    match kind {
        RowKind::Preference => {
            pair::settle(&mut parts).map_err(|what| refuse(&place, "", what))?;
            check_margin(columns.get(MARGIN)).map_err(|what| refuse(&place, MARGIN, what))?;
        }
        RowKind::Prompt => check_open(&parts).map_err(|what| refuse(&place, Part::Prompt.name(), what))?,
        RowKind::Unpaired => check_label(columns.get(LABEL)).map_err(|what| refuse(&place, LABEL, what))?,
        RowKind::PromptCompletion => {}
    }
    Ok(Row { place, parts, columns })
}

/// All at once, so that two columns may change places.
fn rename(columns: &mut Map<String, Value>, names: &Columns) {
    let found: Vec<Option<Value>> = names.values().map(|written| columns.shift_remove(written)).collect();
    for (name, value) in names.keys().zip(found) {
        columns.shift_remove(name);
        columns.extend(value.map(|value| (name.clone(), value)));
    }
}

fn check_open(parts: &BTreeMap<Part, Content>) -> Result<(), String> {
    match parts.get(&Part::Prompt) {
        Some(Content::Messages(messages)) if messages.last().is_some_and(|last| role(last) == ASSISTANT) => {
            Err(format!("ends with the role \"{ASSISTANT}\": a prompt ends before the answer"))
        }
        _ => Ok(()),
    }
}

fn check_margin(margin: Option<&Value>) -> Result<(), String> {
    match margin {
        None | Some(Value::Null | Value::Number(_)) => Ok(()),
        Some(other) => Err(format!("{other} where a number belongs")),
    }
}

fn check_label(label: Option<&Value>) -> Result<(), String> {
    match label {
        Some(label) if number(label).is_some_and(|number| number == 0.0 || number == 1.0) => Ok(()),
        Some(label) => Err(format!("{label} where true, false, 1 or 0 belongs")),
        None => Err("missing; it says whether the answer is desirable: true, false, 1 or 0".into()),
    }
}

fn no_shape(place: &Place, line: &str, kind: RowKind, names: &Columns) -> DataError {
    let part = |part: &Part| match names.get(part.name()) {
        Some(written) => format!("`{written}` (data.columns.{})", part.name()),
        None => format!("`{}`", part.name()),
    };
    let wanted: Vec<String> =
        kind.shapes().iter().map(|shape| shape.iter().map(part).collect::<Vec<_>>().join(" and ")).collect();
    // As the file has them, before any got another name.
    let columns: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
    let there = columns.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| format!("`{name}`"));
    let there: Vec<String> = there.collect();
    let remedy = if names.is_empty() { "; data.columns gives columns with other names" } else { "" };
    refuse(place, "", format!("needs {}; it has {}{remedy}", wanted.join(", or "), there.join(", ")))
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
                part if part != Part::Prompt && !answers => Err(refuse(
                    place,
                    key,
                    format!("no message has the role \"{ASSISTANT}\": there is nothing to learn"),
                )),
                _ => Ok(Content::Messages(messages)),
            }
        }
        other if part == Part::Messages => {
            Err(refuse(place, key, format!("{} where a list of messages belongs", what(&other))))
        }
        other => Err(refuse(place, key, format!("{} where a string or a list of messages belongs", what(&other)))),
    }
}

fn message(place: &Place, key: &str, value: Value) -> Result<Message> {
    let Value::Object(message) = value else {
        return Err(refuse(place, key, format!("{} where a message with `role` and `content` belongs", what(&value))));
    };
    if role(&message).is_empty() {
        return Err(refuse(place, &format!("{key}.role"), "missing or no string; for example \"user\"".into()));
    }
    match message.get("content") {
        // A message that only calls tools has no content; the template sees to that.
        Some(Value::String(_) | Value::Null) => Ok(message),
        Some(other) => Err(refuse(place, &format!("{key}.content"), format!("{} where a string belongs", what(other)))),
        None => Err(refuse(place, &format!("{key}.content"), "missing".into())),
    }
}

fn what(value: &Value) -> &'static str {
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
