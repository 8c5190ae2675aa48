//! The source `jsonl`: files of JSON objects, one per row. Checks a row's keys and turns them into parts and
//! columns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::items::{Item, items};
use super::messages::{is_message, message};
use super::refusal::{refuse, what};
use super::{pair, segments, shapes};
use crate::data::error::{DataError, Result};
use crate::data::reading::format::Purpose;
use crate::data::reading::format::refusal::from_to;
use crate::data::rows::columns::Columns;
use crate::data::rows::kind::{ANSWER, LABEL, MARGIN, Part, RowKind};
use crate::data::rows::message::{ASSISTANT, Message, role};
use crate::data::rows::row::{Content, Row, RowCorpus};
use crate::data::rows::split::{Split, split, without_shared_questions};
use crate::data::rows::text::number;
use crate::data::source::Place;
use crate::data::text::{TextFile, check_disjoint, read_files};

/// Where rows come from and how they are split.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOptions {
    /// Files, folders or patterns, as written.
    pub paths: Vec<String>,
    /// Files to evaluate on, in the same forms; if there are any, `split` is not used.
    pub eval_paths: Vec<String>,
    /// How rows are held out.
    pub split: Split,
    /// Columns that have other names in the files.
    pub columns: Columns,
    /// What follows each segment of a completion that is a list of texts.
    pub separator: String,
}

impl RowOptions {
    /// Reads, checks and splits the rows, which must be of this kind.
    ///
    /// # Errors
    /// Those of reading text files; a line that is not a row of the kind, with its key; a split that leaves one
    /// side empty.
    pub fn read(&self, kind: RowKind) -> Result<RowCorpus> {
        let name = self.paths.join(", ");
        let train = read_files(&self.paths, Purpose::Rows)?;
        let eval = if self.eval_paths.is_empty() { Vec::new() } else { read_files(&self.eval_paths, Purpose::Rows)? };
        check_disjoint(&train, &eval)?;
        let sources = train.iter().chain(&eval).map(|file| file.source.clone()).collect();
        let rows = self.parse_files(&train, kind)?;
        let sides = if eval.is_empty() {
            split(&name, rows, &self.split)?
        } else {
            without_shared_questions(rows, self.parse_files(&eval, kind)?)
        };
        let is_requested = !self.eval_paths.is_empty() || matches!(self.split, Split::Column(_));
        for (side, purpose) in [(&sides.train, "train"), (&sides.held_out, "evaluate")] {
            if side.is_empty() && (purpose == "train" || is_requested) {
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
        let mut rows = rows.collect::<Result<Vec<_>>>()?.concat();
        rows.iter_mut().try_for_each(|row| segments::separate(row, &self.separator))?;
        Ok(rows)
    }
}

/// Returns the rows of a file, segments of a completion still without separators: one object per line, a list of objects, or objects that span several lines. Empty
/// lines are skipped.
///
/// # Errors
/// The first line that is not a row of this kind.
pub fn parse(path: &Path, text: &str, kind: RowKind, columns: &Columns) -> Result<Vec<Row>> {
    items(path, text, columns)?.into_iter().map(|item| row(item, kind, columns)).collect()
}

fn row(Item { place, text, value }: Item<'_>, kind: RowKind, names: &Columns) -> Result<Row> {
    let Value::Object(mut columns) = value else {
        return Err(refuse(&place, "", format!("expected an object with the row's keys, found {}", what(&value))));
    };
    rename(&mut columns, names);
    name_conversation(&mut columns, kind);
    let segments = segments::take(&place, &mut columns, kind)?;
    // A key with the value null counts as missing, because exporters of tables write it that way.
    let has = |part: &Part| columns.get(part.name()).is_some_and(|value| !value.is_null());
    let Some(shape) = kind.shapes().iter().find(|shape| shape.iter().all(has)) else {
        return Err(no_shape(&place, text, kind, names));
    };
    let mut parts = BTreeMap::new();
    for part in *shape {
        let value = columns.shift_remove(part.name()).unwrap_or_default();
        parts.insert(*part, content(&place, *part, value)?);
    }
    let separated = match kind {
        RowKind::Preference => pair::separate_prompt(&mut parts),
        RowKind::Unpaired | RowKind::PromptCompletion => pair::remove_prompt(&mut parts, Part::Completion),
        RowKind::Prompt => Ok(()),
    };
    separated.map_err(|what| refuse(&place, "", what))?;
    match kind {
        RowKind::Preference => check_margin(columns.get(MARGIN)).map_err(|what| refuse(&place, MARGIN, what))?,
        RowKind::Prompt => {
            check_open(&parts).map_err(|what| refuse(&place, Part::Prompt.name(), what))?;
            normalize_answer(&mut columns);
            check_answer(columns.get(ANSWER)).map_err(|what| refuse(&place, ANSWER, what))?;
        }
        RowKind::Unpaired => check_label(columns.get(LABEL)).map_err(|what| refuse(&place, LABEL, what))?,
        RowKind::PromptCompletion => {}
    }
    Ok(Row { place, parts, columns, segments })
}

/// Keys that hold a conversation in data sets of ShareGPT's shape and in others.
const CONVERSATIONS: [&str; 2] = ["conversations", "conversation"];

/// Renames a list of messages that another tool calls a conversation to the row's `messages`, or to the prompt of
/// its answers, if the row has none.
fn name_conversation(columns: &mut Map<String, Value>, kind: RowKind) {
    let there = |name: &str| columns.get(name).is_some_and(|value| !value.is_null());
    let part = match kind {
        RowKind::PromptCompletion if !there("prompt") || !there("completion") => Part::Messages,
        RowKind::PromptCompletion => return,
        RowKind::Preference | RowKind::Prompt | RowKind::Unpaired => Part::Prompt,
    };
    let is_list = |value: &Value| value.as_array().is_some_and(|list| list.iter().any(Value::is_object));
    let found = CONVERSATIONS.iter().find(|name| columns.get(**name).is_some_and(is_list));
    if let Some(name) = found.filter(|_| !there(part.name())) {
        let value = columns.shift_remove(*name).unwrap_or_default();
        columns.insert(part.name().to_owned(), value);
    }
}

/// Renames all at once, so that two columns can swap names.
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
        None | Some(Value::Null) => Ok(()),
        Some(value) if value.is_number() && number(value).is_some() => Ok(()),
        Some(other) => Err(format!("expected a number, found {other}")),
    }
}

/// Turns SQuAD's answers, `{"text": [...], "answer_start": [...]}`, into the list of their texts; the positions are
/// not used.
fn normalize_answer(columns: &mut Map<String, Value>) {
    if let Some(answer) = columns.get_mut(ANSWER)
        && let Value::Object(object) = &*answer
        && object.keys().all(|key| key == "text" || key == "answer_start")
        && let Some(texts) = object.get("text").filter(|texts| texts.is_array() || texts.is_string()).cloned()
    {
        *answer = texts;
    }
}

/// Checks that a right answer is a string or a number, or a list of several right answers.
fn check_answer(answer: Option<&Value>) -> Result<(), String> {
    let wanted = "a right answer is a string or a number, or a list of several, of which any counts; give other values another \
                  key, or write them as strings";
    match answer {
        Some(Value::Bool(truth)) => {
            Err(format!("expected a right answer, found {truth}: write the word that the model should answer, such as \"{truth}\" \
                         or \"yes\"; give other values another key"))
        }
        Some(Value::String(text)) if is_list_of_texts(text) => Err(
            "a list within a string; write several right answers as a list: jq -c '.answer |= fromjson' converts it (Python's \
             notation: ast.literal_eval and json.dumps); if the brackets are part of a single answer, put the string into a list: \
             jq -c '.answer |= [.]'; give other values another key"
                .to_owned(),
        ),
        Some(Value::Array(list)) if list.is_empty() => {
            Err("an empty list, so that no answer would be right; remove the row, or give [\"\"] if the right answer is \
                 empty".into())
        }
        Some(Value::Array(list)) => {
            let other = list.iter().enumerate().find(|(_, value)| !value.is_string() && !value.is_number());
            other.map_or(Ok(()), |(index, value)| Err(format!("{} at place {index} of the list; {wanted}", what(value))))
        }
        Some(value @ Value::Object(_)) => Err(format!("{}; {wanted}", what(value))),
        _ => Ok(()),
    }
}

/// Whether a string is a list of strings in JSON or Python notation.
fn is_list_of_texts(text: &str) -> bool {
    let text = text.trim();
    let is_python = text.starts_with("['") && text.ends_with("']");
    is_python
        || text.starts_with('[')
            && serde_json::from_str::<Vec<Value>>(text).is_ok_and(|list| list.iter().any(Value::is_string))
}

fn check_label(label: Option<&Value>) -> Result<(), String> {
    match label {
        Some(label) if number(label).is_some_and(|number| number == 0.0 || number == 1.0) => Ok(()),
        Some(label) => Err(format!("expected true, false, 1 or 0, found {label}")),
        None => Err("missing; expected true, false, 1 or 0: whether the answer is desirable".into()),
    }
}

fn no_shape(place: &Place, text: &str, kind: RowKind, names: &Columns) -> DataError {
    let part = |part: &Part| match names.get(part.name()) {
        Some(written) => format!("`{written}` (data.columns.{})", part.name()),
        None => format!("`{}`", part.name()),
    };
    let wanted: Vec<String> =
        kind.shapes().iter().map(|shape| shape.iter().map(part).collect::<Vec<_>>().join(" and ")).collect();
    // The columns as in the file, before any was renamed.
    let columns: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    let there = columns.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| format!("`{name}`"));
    let there: Vec<String> = there.collect();
    let names_of_parts = || kind.shapes().iter().flat_map(|shape| shape.iter()).map(|part| part.name());
    let written = |name: &str| names.get(name).cloned().unwrap_or_else(|| name.to_owned());
    let nulls: BTreeSet<String> =
        names_of_parts().map(written).filter(|name| columns.get(name).is_some_and(Value::is_null)).collect();
    let nulls: String = nulls
        .iter()
        .map(|name| {
            format!(
                "; `{name}` is null, which counts as missing: give it a value, \"\" for an empty one, or remove the row"
            )
        })
        .collect();
    let remedy = if names.is_empty() { shapes::remedy(&columns, kind) } else { String::new() };
    let remedy = nulls + &remedy;
    let remedy = remedy.replace("IN > OUT", &from_to(Path::new(&*place.file)));
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
                .map(|(i, value)| message(place, &format!("{key}[{i}]"), value))
                .collect::<Result<_>>()?;
            let answers = messages.iter().any(|message| role(message) == ASSISTANT);
            if messages.is_empty() {
                return Err(refuse(place, key, "no message in the list".into()));
            }
            if part != Part::Prompt && !answers {
                let roles: Vec<String> = messages.iter().map(|message| format!("\"{}\"", role(message))).collect();
                let what = format!(
                    "no message has the role \"{ASSISTANT}\": there is nothing to learn; the roles are {}",
                    roles.join(", ")
                );
                return Err(refuse(place, key, what));
            }
            Ok(Content::Messages(messages))
        }
        // One message of a conversation: some preference data sets store each answer in this form.
        Value::Object(_) if part != Part::Messages && is_message(&value) => {
            content(place, part, Value::Array(vec![value]))
        }
        other if part == Part::Messages => {
            Err(refuse(place, key, format!("expected a list of messages, found {}", what(&other))))
        }
        other => Err(refuse(place, key, format!("expected a string or a list of messages, found {}", what(&other)))),
    }
}
