//! Reads messages of a conversation in the shape of chat templates (`role`, `content`) or of ShareGPT (`from`,
//! `value`), whose content is text or parts of text.

use serde_json::Value;

use super::refusal::{refuse, what};
use crate::data::error::Result;
use crate::data::place::Place;
use crate::data::rows::message::{ASSISTANT, Message, role};

/// The roles that the values of ShareGPT's `from` stand for.
const SHAREGPT: &[(&str, &str)] = &[
    ("human", "user"),
    ("user", "user"),
    ("gpt", ASSISTANT),
    ("chatgpt", ASSISTANT),
    ("bing", ASSISTANT),
    ("bard", ASSISTANT),
    ("assistant", ASSISTANT),
    ("system", "system"),
    ("tool", "tool"),
    ("observation", "tool"),
    ("function_response", "tool"),
];

/// Keys that do not count as content: a message without content that has only these is empty.
const NOT_CONTENT: [&str; 5] = ["role", "content", "name", "weight", "train"];

/// Whether a value has the shape of a message.
pub(super) fn is_message(value: &Value) -> bool {
    ["role", "from"].iter().any(|key| value.get(key).is_some())
}

/// Returns a message, with its keys renamed to those of chat templates.
///
/// # Errors
/// A value that is not a message, with its place within the row.
pub(super) fn message(place: &Place, key: &str, value: Value) -> Result<Message> {
    let Value::Object(mut message) = value else {
        return Err(refuse(
            place,
            key,
            format!("expected a message with `role` and `content`, found {}", what(&value)),
        ));
    };
    if !message.contains_key("role") && !message.contains_key("content") && message.contains_key("value") {
        from_sharegpt(&mut message).map_err(|what| refuse(place, &format!("{key}.from"), what))?;
    }
    let written = role(&message);
    if written.is_empty() {
        return Err(refuse(place, &format!("{key}.role"), "missing or not a string; for example \"user\"".into()));
    }
    if written != ASSISTANT && written.trim().eq_ignore_ascii_case(ASSISTANT) {
        let what = format!("{written:?}, which would not be learned: write the role as \"{ASSISTANT}\"");
        return Err(refuse(place, &format!("{key}.role"), what));
    }
    match message.get("content") {
        Some(Value::String(_)) => Ok(message),
        Some(Value::Array(parts)) => {
            check_parts(parts).map_err(|(part, what)| refuse(place, &format!("{key}.content{part}"), what))?;
            Ok(message)
        }
        None | Some(Value::Null) => {
            // A message that only calls tools has no content; the template handles that.
            let is_content =
                |(name, value): (&String, &Value)| !NOT_CONTENT.contains(&name.as_str()) && !value.is_null();
            if message.iter().any(is_content) {
                return Ok(message);
            }
            let found = if message.contains_key("content") { "null" } else { "missing" };
            Err(refuse(
                place,
                &format!("{key}.content"),
                format!("{found}, and the message calls no tool: it is empty"),
            ))
        }
        Some(other) => {
            let what = format!("expected a string or a list of parts, found {}", what(other));
            Err(refuse(place, &format!("{key}.content"), what))
        }
    }
}

fn from_sharegpt(message: &mut Message) -> Result<(), String> {
    let from = message.get("from").and_then(Value::as_str).unwrap_or_default();
    let Some((_, role)) = SHAREGPT.iter().find(|(name, _)| *name == from) else {
        let known: Vec<&str> = SHAREGPT.iter().map(|(name, _)| *name).collect();
        return Err(format!("{from:?} is not a known speaker; expected one of: {}", known.join(", ")));
    };
    let mut other = std::mem::take(message);
    other.shift_remove("from");
    let value = other.shift_remove("value").unwrap_or_default();
    message.insert("role".to_owned(), (*role).into());
    message.insert("content".to_owned(), value);
    message.extend(other);
    Ok(())
}

/// Checks that all parts are text.
fn check_parts(parts: &[Value]) -> Result<(), (String, String)> {
    if parts.is_empty() {
        return Err((String::new(), "an empty list of parts".into()));
    }
    for (index, part) in parts.iter().enumerate() {
        let place = format!("[{index}]");
        let Value::Object(part) = part else {
            let what = format!("expected a part such as {{\"type\": \"text\", \"text\": ...}}, found {}", what(part));
            return Err((place, what));
        };
        match part.get("type").and_then(Value::as_str) {
            Some("text") if part.get("text").is_some_and(Value::is_string) => {}
            Some("text") => return Err((format!("{place}.text"), "missing or not a string".into())),
            Some(other) => {
                let what = format!(
                    "{other:?} is not supported: the models read text only, so every part must have the type \"text\""
                );
                return Err((format!("{place}.type"), what));
            }
            None => return Err((format!("{place}.type"), "missing or not a string; for example \"text\"".into())),
        }
    }
    Ok(())
}
