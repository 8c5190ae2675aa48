//! A row's other prompt, which takes the place of its own for the role `context`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::layout::RowLayout;
use crate::data::error::{DataError, Result};
use crate::data::rows::kind::Part;
use crate::data::rows::read::refusal::what;
use crate::data::rows::row::{Content, Row};

/// Writes the text in `column` as the row's prompt would be written, up to where an answer begins. It takes the place of the whole
/// prompt: of a conversation, also of the messages before the user's.
///
/// # Errors
/// A row without a text in `column`; a template that fails.
pub(in crate::data::rows) fn other_prompt(row: &Row, column: &str, layout: &RowLayout) -> Result<String> {
    let refuse = |what: &str, remedy: &str| {
        let what = format!("{what}, but [context] prompt = \"{column}\" reads a text there in every row: {remedy}");
        DataError::Json { place: row.place.clone(), key: column.to_owned(), what }
    };
    let text = match row.columns.get(column) {
        Some(Value::String(text)) if !text.is_empty() => text,
        Some(Value::String(_)) => {
            return Err(refuse(
                "an empty text",
                "write the prompt that takes the place of the row's, or remove the row",
            ));
        }
        Some(Value::Array(list)) if list.iter().any(Value::is_object) => {
            return Err(refuse(
                "a list of messages",
                "write the other prompt as one text; a chat template makes it a user's message",
            ));
        }
        Some(other) => return Err(refuse(&format!("{}, not a text", what(other)), "write the other prompt as a text")),
        None if row.parts.keys().any(|part| part.name() == column) => {
            let what = "a part of the row that is read itself, not a column";
            let remedy = "give the other prompt in a column of another name, such as prompt_with_hint";
            return Err(refuse(what, remedy));
        }
        None => {
            let names: Vec<&str> =
                row.columns.iter().filter(|(_, value)| value.is_string()).map(|(name, _)| name.as_str()).collect();
            let there = match names.is_empty() {
                true => "this row has no other texts".to_owned(),
                false => format!("this row's other texts are {}", names.join(", ")),
            };
            return Err(refuse("missing", &format!("add it, or remove the row; {there}")));
        }
    };
    let message = || json!({"role": "user", "content": text}).as_object().cloned().into_iter().collect();
    let content = if layout.templates(row) { Content::Messages(message()) } else { Content::Text(text.clone()) };
    let other = Row { parts: BTreeMap::from([(Part::Prompt, content)]), ..row.clone() };
    Ok(layout.lay_out(&other, Part::Prompt)?.text)
}
