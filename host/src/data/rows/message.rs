//! One message of a conversation: its role and its text.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// One message of a conversation: `role`, `content` and other keys that the template reads, as in the file.
pub type Message = Map<String, Value>;

/// The role of a message; "" if it has none.
pub fn role(message: &Message) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

/// The role whose messages are learned.
pub const ASSISTANT: &str = "assistant";

/// The text of a message: its content, or the texts of its parts joined; "" if it has none.
pub fn words(message: &Message) -> Cow<'_, str> {
    match message.get("content") {
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect::<String>().into()
        }
        _ => Cow::Borrowed(""),
    }
}
