//! A row's other prompt, which takes the place of its own for the role `context`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::layout::RowLayout;
use crate::data::error::{DataError, Result};
use crate::data::rows::kind::Part;
use crate::data::rows::row::{Content, Row};

/// Writes the text in `column` as the row's prompt would be written, up to where an answer begins. It takes the place of the whole
/// prompt: of a conversation, also of the messages before the user's.
///
/// # Errors
/// A row without a text in `column`; a template that fails.
pub(in crate::data::rows) fn other_prompt(row: &Row, column: &str, layout: &RowLayout) -> Result<String> {
    let refuse = |what: &str| {
        let what = format!(
            "{what}, but [context] prompt = \"{column}\" reads a text there in every row: add it, or remove the row"
        );
        DataError::Json { place: row.place.clone(), key: column.to_owned(), what }
    };
    let text = match row.columns.get(column) {
        Some(Value::String(text)) if !text.is_empty() => text,
        Some(Value::String(_)) => return Err(refuse("an empty text")),
        Some(_) => return Err(refuse("not a text")),
        None => return Err(refuse("missing")),
    };
    let message = || json!({"role": "user", "content": text}).as_object().cloned().into_iter().collect();
    let content = if layout.templates(row) { Content::Messages(message()) } else { Content::Text(text.clone()) };
    let other = Row { parts: BTreeMap::from([(Part::Prompt, content)]), ..row.clone() };
    Ok(layout.lay_out(&other, Part::Prompt)?.text)
}
