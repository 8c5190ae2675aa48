//! Turns a JSON value into a row: parts and columns, checked.

mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::formats::{self, Converted, Format};
use super::items::Item;
use super::messages::{is_message, message};
use super::refusal::{refuse, what};
use super::{pair, segments, shapes};
use crate::data::error::{DataError, Result};
use crate::data::place::Place;
use crate::data::reading::format::record::Unreadable;
use crate::data::reading::format::refusal::from_to;
use crate::data::rows::columns::{Columns, Found, NamedBy, rename};
use crate::data::rows::kind::{ANSWER, EXAMPLES, LABEL, MARGIN, OF_FORMATS, Part, RowKind};
use crate::data::rows::message::{ASSISTANT, Message, role};
use crate::data::rows::row::{Content, Row};
use checks::{check_answer, check_label, check_margin, check_open, check_readable, normalize_answer};

/// The names of a source's columns.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// The file's names.
    pub columns: &'a Columns,
    /// Where they are written, for messages.
    pub by: &'a NamedBy,
}

/// Returns a row and its format; `None` if it is left out because all its answers have the same score.
pub fn row(
    Item { place, value, unreadable }: Item,
    kind: RowKind,
    names: Names<'_>,
    found: &Found,
    format: Option<Format>,
) -> Result<Option<(Row, Format)>> {
    let Value::Object(mut columns) = value else {
        return Err(refuse(&place, "", format!("expected an object with the row's keys, found {}", what(&value))));
    };
    let written = outline(&columns);
    rename(&mut columns, names.columns, found);
    if format.is_none() {
        check_unambiguous(&columns, kind, names).map_err(|what| refuse(&place, "", what))?;
    }
    name_conversation(&mut columns, kind, format).map_err(|name| refuse(&place, name, NO_MESSAGE.to_owned()))?;
    // A key with the value null counts as missing, because exporters of tables write it that way.
    let has =
        |columns: &Map<String, Value>, part: &Part| columns.get(part.name()).is_some_and(|value| !value.is_null());
    let shapes = formats::shapes(format, kind);
    if !unreadable.is_empty() {
        check_readable(&columns, &unreadable, kind, shapes, names.columns)
            .map_err(|Unreadable { column, what }| refuse(&place, &column, what))?;
    }
    let is_own = |columns: &Map<String, Value>| {
        let stepwise =
            kind == RowKind::PromptCompletion && has(columns, &Part::Prompt) && columns.contains_key("completions");
        let fits = stepwise || shapes.iter().any(|shape| shape.iter().all(|part| has(columns, part)));
        let asked = ["question", "instruction"].iter().find_map(|name| columns.get(*name)?.as_str());
        match (asked, columns.get(Part::Chosen.name()), columns.get(Part::Rejected.name())) {
            (Some(asked), Some(chosen), Some(rejected))
                if fits && kind == RowKind::Preference && !has(columns, &Part::Prompt) =>
            {
                pair::begin_with(asked, chosen, rejected)
            }
            _ => Some(fits),
        }
    };
    let converted =
        formats::convert(&mut columns, kind, format, names.by, is_own).map_err(|what| refuse(&place, "", what))?;
    if matches!(converted, Converted::SameScore) {
        return Ok(None);
    }
    let segments = segments::take(&place, &mut columns, kind, names.by)?;
    let Some(shape) = shapes.iter().find(|shape| shape.iter().all(|part| has(&columns, part))) else {
        return Err(no_shape(&place, &written, kind, shapes, names));
    };
    let format = match converted {
        Converted::As(format) => format,
        _ => Format::of_parts(&columns, shape, kind, !segments.is_empty()),
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
    Ok(Some((Row { place, parts, columns, segments }, format)))
}

/// The names of a row's columns, with the type of each value, for messages.
fn outline(columns: &Map<String, Value>) -> Map<String, Value> {
    let shallow = |value: &Value| match value {
        Value::String(_) => "".into(),
        Value::Array(list) if list.iter().any(Value::is_object) => vec![Value::Object(Map::new())].into(),
        Value::Array(_) => Value::Array(Vec::new()),
        Value::Object(_) => Value::Object(Map::new()),
        other => other.clone(),
    };
    columns.iter().map(|(name, value)| (name.clone(), shallow(value))).collect()
}

/// Keys that hold a conversation in data sets of ShareGPT's shape and in others.
const CONVERSATIONS: [&str; 2] = ["conversations", "conversation"];

fn is_conversation(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().any(Value::is_object))
}

/// Refuses a row with two whole examples, of which only one would be read: `messages`, `conversations`, or a prompt with its
/// completion. A `prompt` alone next to messages is a copy of their beginning, as published sets have it.
fn check_unambiguous(columns: &Map<String, Value>, kind: RowKind, names: Names<'_>) -> Result<(), String> {
    let there = |name: &str| columns.get(name).is_some_and(|value| !value.is_null());
    let messages = columns.get("messages").is_some_and(is_conversation).then_some((vec!["messages"], "messages"));
    let conversation = CONVERSATIONS.into_iter().find(|name| columns.get(*name).is_some_and(is_conversation));
    let conversation = conversation.map(|name| (vec![name], "sharegpt"));
    let answer = [("completion", "prompt-completion"), ("completions", "stepwise")];
    let answer = answer.into_iter().find(|(name, _)| there(name) && there("prompt"));
    let ways: Vec<_> = match kind {
        RowKind::PromptCompletion => {
            let answer = answer.map(|(name, format)| (vec!["prompt", name], format));
            messages.into_iter().chain(conversation).chain(answer).collect()
        }
        // Only a prompt of that name, or a conversation, is read.
        RowKind::Prompt if !there("prompt") => messages.into_iter().chain(conversation).collect(),
        RowKind::Prompt | RowKind::Preference | RowKind::Unpaired => return Ok(()),
    };
    if ways.len() < 2 {
        return Ok(());
    }
    let written = |name: &&str| format!("`{}`", names.columns.get(*name).map_or(*name, String::as_str));
    let way = |(columns, _): &(Vec<&str>, &str)| columns.iter().map(written).collect::<Vec<_>>().join(" with ");
    let formats: Vec<&str> = ways.iter().map(|(_, format)| *format).collect();
    let decide = names.by.format(&formats).map_or(String::new(), |how| format!(", or decide with {how}"));
    Err(format!(
        "the row can be read from {}: drop or rename the columns that are not meant{decide}",
        ways.iter().map(way).collect::<Vec<_>>().join(" or ")
    ))
}

/// Renames a list of messages that another tool calls a conversation to the row's `messages`, or to the prompt of
/// its answers, if the row has none.
///
/// # Errors
/// The name of such a list without a message, if the row has nothing else.
fn name_conversation(
    columns: &mut Map<String, Value>,
    kind: RowKind,
    format: Option<Format>,
) -> Result<(), &'static str> {
    let there = |name: &str| columns.get(name).is_some_and(|value| !value.is_null());
    let is_wanted = format == Some(Format::ShareGpt);
    let part = match kind {
        RowKind::PromptCompletion if is_wanted => Part::Messages,
        RowKind::PromptCompletion if !there("prompt") || !there("completion") => Part::Messages,
        RowKind::PromptCompletion => return Ok(()),
        RowKind::Preference | RowKind::Prompt | RowKind::Unpaired => Part::Prompt,
    };
    let found = CONVERSATIONS.iter().find(|name| columns.get(**name).is_some_and(is_conversation));
    if let Some(name) = found.filter(|_| is_wanted || !there(part.name())) {
        let value = columns.shift_remove(*name).unwrap_or_default();
        columns.shift_remove(part.name());
        columns.insert(part.name().to_owned(), value);
        return Ok(());
    }
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let others = columns.iter().filter(|(name, value)| OF_FORMATS.contains(&name.as_str()) && !value.is_null());
    match CONVERSATIONS.into_iter().find(|name| columns.get(*name).is_some_and(is_empty)) {
        Some(name) if others.count() == 1 => Err(name),
        _ => Ok(()),
    }
}

/// What is wrong with a conversation that is an empty list.
const NO_MESSAGE: &str = "no message in the list";

fn no_shape(
    place: &Place,
    columns: &Map<String, Value>,
    kind: RowKind,
    shapes: &[&[Part]],
    Names { columns: names, by }: Names<'_>,
) -> DataError {
    let part = |part: &Part| match names.get(part.name()) {
        Some(written) => format!("`{written}` ({})", by.key(part.name())),
        None => format!("`{}`", part.name()),
    };
    let wanted = match kind {
        RowKind::Preference if shapes.len() > 1 => {
            let [chosen, rejected, prompt] = [Part::Chosen, Part::Rejected, Part::Prompt].map(|one| part(&one));
            format!("{chosen} and {rejected}, and {prompt} unless both contain it")
        }
        _ => {
            let shape = |shape: &&[Part]| shape.iter().map(part).collect::<Vec<_>>().join(" and ");
            shapes.iter().map(shape).collect::<Vec<_>>().join(", or ")
        }
    };
    let there: Vec<String> =
        columns.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| format!("`{name}`")).collect();
    let there = match (columns.is_empty(), there.is_empty()) {
        (true, _) => "no column".to_owned(),
        (_, true) => "no value".to_owned(),
        _ => there.join(", "),
    };
    let written = |name: &str| names.get(name).cloned().unwrap_or_else(|| name.to_owned());
    let parts = shapes.iter().flat_map(|shape| shape.iter()).map(|part| part.name());
    let nulls: BTreeSet<String> =
        parts.chain(EXAMPLES).map(written).filter(|name| columns.get(name).is_some_and(Value::is_null)).collect();
    let nulls: String = nulls
        .iter()
        .map(|name| {
            format!(
                "; `{name}` is null, which counts as missing: give it a value, \"\" for an empty one, or remove the row"
            )
        })
        .collect();
    let remedy = if names.is_empty() { shapes::remedy(columns, kind, by) } else { String::new() };
    let remedy = nulls + &remedy;
    let remedy = remedy.replace("IN > OUT", &from_to(Path::new(&*place.file)));
    refuse(place, "", format!("needs {wanted}; it has {there}{remedy}"))
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
                return Err(refuse(place, key, NO_MESSAGE.to_owned()));
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
