//! What templates do with contents that are lists of parts, with roles that they do not know, and with answers that were cut
//! off.

use std::borrow::Cow;

use serde_json::Value;

use super::laid::Laid;
use super::template::{ChatTemplate, Variables};
use crate::data::rows::kind::Part;
use crate::data::rows::message::{ASSISTANT, Message, role, words};
use crate::data::rows::row::{Content, Row};

/// The messages as `template` reads them. Lists of parts reach it unchanged where it writes their texts; a template that
/// writes strings only would write the list's own notation, or nothing, and gets the parts' texts joined.
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

/// Roles that chat templates know, and which they may leave out on purpose.
const KNOWN: [&str; 4] = ["system", "user", ASSISTANT, "tool"];

/// Checks that a template wrote the messages whose roles are unusual: many write those that they know, and drop others without
/// a word.
///
/// # Errors
/// The first message that `text` does not hold.
pub(super) fn check_written(messages: &[Message], text: &str) -> Result<(), String> {
    let dropped = |message: &&Message| !KNOWN.contains(&role(message)) && !text.contains(words(message).trim());
    match messages.iter().position(|message| dropped(&message)) {
        None => Ok(()),
        Some(index) => Err(format!(
            "the chat template leaves message {} out: it does not know the role \"{}\"; rename the role (known to most are {}), or \
             give data.chat_template one that writes it",
            index + 1,
            role(&messages[index]),
            KNOWN.join(", ")
        )),
    }
}

/// Checks that a template wrote the calls of tools that messages make: one that does not know them drops them, and the model would
/// learn to say nothing in their place.
///
/// # Errors
/// The key, and the first message whose calls are not there.
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
                "message {} calls tools, and the chat template does not write such calls; give data.chat_template one that does",
                index + 1
            );
            Err(("tool_calls".to_owned(), what))
        }
        _ => Ok(()),
    }
}

/// The text up to the last word of an answer that was cut off: what a template writes behind an answer would teach that it ends
/// there.
pub(in crate::data::rows) fn without_closing(mut laid: Laid, row: &Row, answer: Part) -> Laid {
    let said = match row.parts.get(&answer) {
        Some(Content::Text(text)) => Cow::Borrowed(text.as_str()),
        Some(Content::Messages(messages)) => messages.last().map(words).unwrap_or_default(),
        None => return laid,
    };
    let Some(span) = laid.supervised.last_mut() else { return laid };
    let byte = |place: usize| laid.text.char_indices().nth(place).map_or(laid.text.len(), |(at, _)| at);
    let (start, end) = (byte(span.start), byte(span.end));
    let stretch = &laid.text[start..end];
    let found = [said.as_ref(), said.trim()].into_iter().find_map(|said| Some((stretch.rfind(said)?, said.len())));
    let kept = match found {
        _ if said.trim().is_empty() => 0,
        Some((at, length)) => at + length,
        None => return laid,
    };
    span.end = span.start + stretch[..kept].chars().count();
    laid.text.truncate(start + kept);
    laid
}
