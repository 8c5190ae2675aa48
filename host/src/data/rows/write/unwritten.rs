//! Finds what a chat template leaves out of messages, and a generation prompt that differs from how the template
//! begins answers. Both are found by rendering rows again with changes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::layout::{RowLayout, conversation};
use super::learned::is_about_learning;
use super::parts::as_read;
use super::template::{REASONING, Variables};
use crate::data::error::Result;
use crate::data::rows::kind::{Part, RowKind};
use crate::data::rows::message::{ASSISTANT, Message, role};
use crate::data::rows::row::{Content, Row};
use crate::data::rows::store::every::Every;

/// The most rows that are rendered for one key; they are spread evenly.
const TRIED: usize = 500;
/// Keys that are not reported: every template is expected to write the first two, and the third only identifies the
/// call that a tool answers.
const NOT_NAMED: [&str; 3] = ["role", "content", "tool_call_id"];
/// The role of a message that holds a tool's answer.
const TOOL: &str = "tool";
/// Prefix for the key of a part of a content.
const IN_PARTS: &str = "content.";
/// The most characters shown of an example.
const SHOWN: usize = 40;

impl RowLayout {
    /// Returns the keys of the rows' messages that the template does not write, and how many rows have each:
    /// without the key, the text of every row that was tried is the same. `content.KEY` is a key of a part of a
    /// content. Empty keys, and those that decide whether a message is learned, are not included.
    ///
    /// # Errors
    /// Rows that cannot be read again.
    pub fn unwritten_keys(&self, rows: Every<'_>, kind: RowKind) -> Result<BTreeMap<String, usize>> {
        if rows.survey().with_messages == 0 {
            return Ok(BTreeMap::new());
        }
        let mut found: BTreeMap<String, (BTreeMap<String, usize>, Vec<usize>)> = BTreeMap::new();
        for (number, row) in rows.iter().enumerate() {
            let keys: BTreeSet<String> = row?.parts.values().flat_map(messages).flat_map(keys).collect();
            for key in keys {
                // A message's reasoning is passed to templates under several names at once.
                let group = if REASONING.contains(&key.as_str()) { REASONING[0].to_owned() } else { key.clone() };
                let (names, with_it) = found.entry(group).or_default();
                *names.entry(key).or_default() += 1;
                if with_it.last() != Some(&number) {
                    with_it.push(number);
                }
            }
        }
        let mut unwritten = BTreeMap::new();
        for (names, with_it) in found.into_values() {
            let mut is_written = false;
            for number in with_it.iter().step_by(with_it.len().div_ceil(TRIED).max(1)) {
                let Some(row) = rows.get(*number)? else { continue };
                is_written = kind.texts().iter().any(|end| self.writes(&row, *end, &names));
                if is_written {
                    break;
                }
            }
            if !is_written {
                unwritten.extend(names);
            }
        }
        Ok(unwritten)
    }

    /// Whether the row's text changes without these keys of its messages. A template that fails counts as one that
    /// uses them.
    fn writes(&self, row: &Row, end: Part, keys: &BTreeMap<String, usize>) -> bool {
        let Ok(variables) = Variables::of(row, &self.template) else { return true };
        let (_, messages) = conversation(row, end);
        let open = end == Part::Prompt;
        let messages = as_read(&self.template, &messages, &variables, open);
        let mut without = messages.to_vec();
        for message in &mut without {
            message.retain(|key, _| !keys.contains_key(key));
            for part in message.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Value::Object(part) = part {
                    part.retain(|key, _| !keys.contains_key(&format!("{IN_PARTS}{key}")));
                }
            }
        }
        let text =
            |messages: &[Message]| self.template.render(messages, &variables, open).map(|rendered| rendered.text);
        match (text(&messages), text(&without)) {
            (Ok(with), Ok(without)) => with != without,
            _ => true,
        }
    }

    /// A note if the generation prompt (`add_generation_prompt`) differs from how learned answers begin; `None` if
    /// both are the same in every row that was tried.
    ///
    /// # Errors
    /// Rows that cannot be read again.
    pub fn other_opening(&self, rows: Every<'_>, kind: RowKind) -> Result<Option<String>> {
        let survey = rows.survey();
        if self.template.is_plain() || kind == RowKind::Prompt || (!self.strings && survey.with_messages == 0) {
            return Ok(None);
        }
        let mut templated = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            templated.extend(self.templates(&row?).then_some(number));
        }
        let tried: Vec<usize> = templated.iter().step_by(templated.len().div_ceil(TRIED).max(1)).copied().collect();
        let mut found = Vec::new();
        for number in &tried {
            if let (Some(row), Some(end)) = (rows.get(*number)?, kind.texts().first()) {
                found.extend(self.opening(&row, *end).map(|opening| (row.place, opening)));
            }
        }
        let Some((place, (opened, written))) = found.first() else { return Ok(None) };
        Ok(Some(format!(
            "the chat template opens an answer with {opened:?} (add_generation_prompt), but writes {written:?} there in {}, as in {} of \
             {} rows tried: generated answers begin differently from learned ones; change the template to write the same in both",
            place,
            found.len(),
            tried.len()
        )))
    }

    /// Returns the generation prompt of the last answer, and what the whole text has in its place, if the two differ. If
    /// the template marks what is learned, the generation prompt must also reach the first mark: text between the two
    /// would be neither generated nor learned.
    fn opening(&self, row: &Row, end: Part) -> Option<(String, String)> {
        let variables = Variables::of(row, &self.template).ok()?;
        let (_, messages) = conversation(row, end);
        let messages = as_read(&self.template, &messages, &variables, false);
        let last = messages.iter().rposition(|message| role(message) == ASSISTANT)?;
        let opened = self.template.render(&messages[..last], &variables, true).ok()?.text;
        let closed = self.template.render(&messages[..last], &variables, false).ok()?.text;
        let whole = self.template.render(&messages, &variables, false).ok()?;
        // A template that writes the earlier messages differently once an answer follows cannot be compared.
        let opening = opened.strip_prefix(closed.as_str())?;
        let written = whole.text.strip_prefix(closed.as_str())?;
        let (mut is_same, mut length) = (written.starts_with(opening), SHOWN);
        if let Some(marks) = &whole.marked {
            let before = closed.chars().count();
            let unlearned = marks.iter().find_map(|mark| mark.place.start.checked_sub(before))?;
            is_same &= unlearned <= opening.chars().count();
            // A mark that includes the header leaves nothing unlearned to show.
            length = if unlearned > 0 { unlearned.min(SHOWN) } else { SHOWN };
        }
        let shown = |text: &str, length: usize| text.chars().take(length).collect::<String>();
        (!is_same).then(|| (shown(opening, SHOWN), shown(written, length)))
    }
}

fn messages(content: &Content) -> &[Message] {
    match content {
        Content::Messages(messages) => messages,
        Content::Text(_) => &[],
    }
}

/// The non-empty keys of a message that a template may or may not write.
fn keys(message: &Message) -> Vec<String> {
    // The tool's name is also in the call before it.
    let is_known = |key: &str| NOT_NAMED.contains(&key) || key == "name" && role(message) == TOOL;
    let own = message.iter().filter(|(key, value)| !is_known(key) && !is_about_learning(key) && !is_empty(value));
    let mut keys: Vec<String> = own.map(|(key, _)| key.clone()).collect();
    for part in message.get("content").and_then(Value::as_array).into_iter().flatten() {
        let of_part = part.as_object().into_iter().flatten();
        let other = of_part.filter(|(key, value)| !["type", "text"].contains(&key.as_str()) && !is_empty(value));
        keys.extend(other.map(|(key, _)| format!("{IN_PARTS}{key}")));
    }
    keys
}

/// Whether a value holds nothing that could be written.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
