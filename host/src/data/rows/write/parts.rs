//! Handles contents that are lists of parts, roles that a template does not know, and answers that were cut off.

use std::borrow::Cow;

use serde_json::Value;

use super::laid::Laid;
use super::template::{ChatTemplate, Variables};
use crate::data::rows::kind::Part;
use crate::data::rows::message::{ASSISTANT, Message, role, words};
use crate::data::rows::row::{Content, Row};

/// Returns the messages as `template` can read them. Lists of parts are passed unchanged to a template that writes
/// their texts. Other templates would write the list's notation, or nothing, so they get the parts' texts joined.
pub(super) fn as_read<'a>(
    template: &ChatTemplate,
    messages: &'a [Message],
    variables: &Variables,
    open: bool,
) -> Cow<'a, [Message]> {
    let has_parts = |message: &Message| message.get("content").is_some_and(Value::is_array);
    if !messages.iter().any(has_parts) {
        return Cow::Borrowed(messages);
    }
    let mut joined = messages.to_vec();
    for message in joined.iter_mut().filter(|message| has_parts(message)) {
        let text = words(message).into_owned();
        message.insert("content".to_owned(), text.into());
    }
    let types = |text: &str| text.matches("\"type\"").count() + text.matches("'type'").count();
    let expected = template.render(&joined, variables, open).map_or(0, |rendered| types(&rendered.text));
    let reads_parts = template.render(messages, variables, open).is_ok_and(|rendered| {
        let all = messages.iter().filter(|message| has_parts(message));
        types(&rendered.text) <= expected && all.flat_map(texts).all(|text| rendered.text.contains(text.trim()))
    });
    if reads_parts { Cow::Borrowed(messages) } else { Cow::Owned(joined) }
}

fn texts(message: &Message) -> impl Iterator<Item = &str> {
    let parts = message.get("content").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str))
}

/// Roles that chat templates know, and whose messages they may leave out on purpose.
const KNOWN: [&str; 4] = ["system", "user", ASSISTANT, "tool"];

/// Checks that a template wrote the messages with unusual roles: many templates silently drop messages whose roles
/// they do not know.
///
/// # Errors
/// The first message that is missing from `text`.
pub(super) fn check_written(messages: &[Message], text: &str) -> Result<(), String> {
    let dropped = |message: &&Message| !KNOWN.contains(&role(message)) && !text.contains(words(message).trim());
    match messages.iter().position(|message| dropped(&message)) {
        None => Ok(()),
        Some(index) => Err(format!(
            "the chat template does not write message {}: it does not know the role \"{}\"; rename the role (most templates know \
             {}), or give data.chat_template a template that writes it",
            index + 1,
            role(&messages[index]),
            KNOWN.join(", ")
        )),
    }
}

/// Checks that a template wrote the tool calls of messages: a template without tools drops them, and the model
/// would learn an empty answer in their place.
///
/// # Errors
/// The key, and the first message whose calls are missing.
pub(super) fn check_calls(template: &ChatTemplate, messages: &[Message], text: &str) -> Result<(), (String, String)> {
    let calls = |message: &Message| -> Vec<Value> {
        message.get("tool_calls").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let name = |call: &Value| {
        let function = call.get("function").unwrap_or(call);
        function.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let is_dropped = |message: &Message| calls(message).iter().map(name).any(|name| !text.contains(&name));
    match messages.iter().position(is_dropped) {
        Some(index) if !template.source().contains("tool_calls") => {
            let what = format!(
                "message {} calls tools, and the chat template does not write such calls; give data.chat_template a template that \
                 does",
                index + 1
            );
            Err(("tool_calls".to_owned(), what))
        }
        _ => Ok(()),
    }
}

/// Cuts the text after the last word of an answer that was cut off: text that a template writes after an answer would
/// teach the model to end there.
pub(in crate::data::rows) fn without_closing(mut laid: Laid, row: &Row, answer: Part) -> Laid {
    let words_of_answer = match row.parts.get(&answer) {
        Some(Content::Text(text)) => Cow::Borrowed(text.as_str()),
        Some(Content::Messages(messages)) => messages.last().map(words).unwrap_or_default(),
        None => return laid,
    };
    let Some(span) = laid.supervised.last_mut() else { return laid };
    let byte = |place: usize| laid.text.char_indices().nth(place).map_or(laid.text.len(), |(at, _)| at);
    let (start, end) = (byte(span.start), byte(span.end));
    let text = &laid.text[start..end];
    let found = [words_of_answer.as_ref(), words_of_answer.trim()]
        .into_iter()
        .find_map(|words_of_answer| Some((text.rfind(words_of_answer)?, words_of_answer.len())));
    let kept = match found {
        _ if words_of_answer.trim().is_empty() => 0,
        Some((at, length)) => at + length,
        None => return laid,
    };
    span.end = span.start + text[..kept].chars().count();
    laid.text.truncate(start + kept);
    laid
}
