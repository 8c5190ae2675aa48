//! Finds the prompt of two answers: given separately, repeated at the beginning of the answers, or only there.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::data::rows::kind::Part;
use crate::data::rows::message::{ASSISTANT, Message, role, words};
use crate::data::rows::row::Content;

/// Puts the prompt into [`Part::Prompt`] and removes it from the answers.
///
/// # Errors
/// Answers in which the end of the prompt cannot be determined.
pub fn separate_prompt(parts: &mut BTreeMap<Part, Content>) -> Result<(), String> {
    let Some(prompt) = parts.get(&Part::Prompt) else { return extract_prompt(parts) };
    let prompt = as_messages(prompt);
    for part in [Part::Chosen, Part::Rejected] {
        remove_prompt(parts, part)?;
    }
    if let (Some(Content::Messages(chosen)), Some(Content::Messages(rejected))) =
        (parts.get(&Part::Chosen), parts.get(&Part::Rejected))
        && [chosen, rejected].iter().all(|answer| answer.first().is_some_and(|first| role(first) != ASSISTANT))
    {
        return split_conversations(&prompt, parts);
    }
    for part in [Part::Chosen, Part::Rejected] {
        let Some(Content::Messages(answer)) = parts.get(&part) else { continue };
        let first = answer.first().map(role).unwrap_or_default();
        if first != ASSISTANT {
            return Err(format!(
                "`{}` begins with the role \"{first}\": give the answer alone, or the prompt's own messages before it",
                part.name()
            ));
        }
    }
    Ok(())
}

/// Removes the prompt's messages from an answer that repeats them.
///
/// # Errors
/// An answer that contains nothing else.
pub fn remove_prompt(parts: &mut BTreeMap<Part, Content>, answer: Part) -> Result<(), String> {
    let prompt = parts.get(&Part::Prompt).map(as_messages).unwrap_or_default();
    let Some(Content::Messages(messages)) = parts.get_mut(&answer) else { return Ok(()) };
    if !prompt.is_empty() && messages.starts_with(&prompt) {
        messages.drain(..prompt.len());
    }
    if messages.is_empty() {
        return Err(format!("`{}` contains nothing after the prompt", answer.name()));
    }
    Ok(())
}

fn as_messages(prompt: &Content) -> Vec<Message> {
    match prompt {
        Content::Messages(messages) => messages.clone(),
        Content::Text(text) => json!({"role": "user", "content": text}).as_object().cloned().into_iter().collect(),
    }
}

/// Splits two answers that are whole conversations and do not begin with exactly `prompt`. Either both begin with the
/// last messages of the prompt, which are removed; or the prompt repeats some of their common beginning, which then
/// becomes the prompt.
fn split_conversations(prompt: &[Message], parts: &mut BTreeMap<Part, Content>) -> Result<(), String> {
    let (Some(Content::Messages(chosen)), Some(Content::Messages(rejected))) =
        (parts.get(&Part::Chosen), parts.get(&Part::Rejected))
    else {
        return Ok(());
    };
    let shared = shared_prompt(chosen, rejected)?;
    if prompt.len() > shared && prompt.ends_with(&chosen[..shared]) {
        for part in [Part::Chosen, Part::Rejected] {
            if let Some(Content::Messages(answer)) = parts.get_mut(&part) {
                answer.drain(..shared);
            }
        }
        return Ok(());
    }
    let spelled = |message: &Message| spaced(&words(message));
    let repeats = |message: &Message| {
        let text = spelled(message);
        chosen[..shared]
            .iter()
            .map(spelled)
            .any(|other| !other.is_empty() && (other.contains(&text) || text.contains(&other)))
    };
    if !prompt.iter().all(repeats) {
        return Err(
            "`prompt` is not among the messages that `chosen` and `rejected` begin with: which of the two is the prompt? \
                    Give the answers alone, or remove `prompt`"
                .into(),
        );
    }
    extract_prompt(parts)
}

/// Replaces every run of white space by one space.
fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Uses the common beginning of both answers as the prompt.
fn extract_prompt(parts: &mut BTreeMap<Part, Content>) -> Result<(), String> {
    let [prompt, chosen, rejected] = match (parts.get(&Part::Chosen), parts.get(&Part::Rejected)) {
        (Some(Content::Messages(chosen)), Some(Content::Messages(rejected))) => {
            let (prompt, answers) = chosen.split_at(shared_prompt(chosen, rejected)?);
            [prompt, answers, &rejected[prompt.len()..]].map(|messages| Content::Messages(messages.to_vec()))
        }
        (Some(Content::Text(chosen)), Some(Content::Text(rejected))) => {
            let (prompt, answer) = chosen.split_at(shared_text(chosen, rejected)?);
            [prompt, answer, &rejected[prompt.len()..]].map(|text| Content::Text(text.to_owned()))
        }
        _ => {
            return Err(
                "without `prompt` both answers must be strings, or both lists of messages, that begin alike".into()
            );
        }
    };
    parts.extend([(Part::Prompt, prompt), (Part::Chosen, chosen), (Part::Rejected, rejected)]);
    Ok(())
}

/// The number of messages that both conversations begin with, at most up to their last answers.
fn shared_prompt(chosen: &[Message], rejected: &[Message]) -> Result<usize, String> {
    let last = |messages: &[Message]| messages.iter().rposition(|m| role(m) == ASSISTANT).unwrap_or_default();
    let most = last(chosen).min(last(rejected));
    let shared = chosen.iter().zip(rejected).take(most).take_while(|(a, b)| a == b).count();
    let answers = |messages: &[Message]| messages.get(shared).is_some_and(|m| role(m) == ASSISTANT);
    if shared == 0 || !answers(chosen) || !answers(rejected) {
        return Err(
            "`chosen` and `rejected` answer no common prompt: both must begin with the same messages and continue with the \
             assistant's; or give `prompt`"
                .into(),
        );
    }
    Ok(shared)
}

/// What precedes an answer in dialogues that are written as one text.
const TURN: &str = "\n\nAssistant:";

/// Whether two answers begin with their prompt, in a row that also has the question alone; `None` if that is not clear: both begin
/// with the question, as a prompt or because they repeat it.
pub fn begin_with(question: &str, chosen: &Value, rejected: &Value) -> Option<bool> {
    match (chosen, rejected) {
        (Value::String(chosen), Value::String(rejected)) => {
            let shared = common(chosen, rejected);
            match shared.contains(question.trim()) {
                false => Some(false),
                true if question.trim().is_empty() || shared.contains(TURN) => Some(true),
                true => None,
            }
        }
        // A message alone is an answer.
        (one, other) => Some([one, other].iter().all(|value| value.as_array().is_some_and(|list| list.len() > 1))),
    }
}

/// What both texts begin with.
fn common<'a>(one: &'a str, other: &str) -> &'a str {
    let bytes = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    one.get(..bytes).unwrap_or_default()
}

/// The length in bytes of the prompt that both texts begin with: up to the last mark of the assistant's turn within
/// what they share; without a mark, as in TRL's `extract_prompt`, up to the first difference, without a space
/// before it.
fn shared_text(chosen: &str, rejected: &str) -> Result<usize, String> {
    let shared = common(chosen, rejected);
    let prompt = if let Some(at) = shared.rfind(TURN) {
        at + TURN.len()
    } else if shared.len() == chosen.len().min(rejected.len()) {
        // One text continues where the other ends: the last character of the shorter one counts as its answer.
        shared.char_indices().next_back().map_or(0, |(at, _)| at)
    } else {
        shared.strip_suffix(' ').unwrap_or(shared).len()
    };
    if prompt == 0 {
        return Err(
            "without `prompt` both answers must begin with the text that they answer, and these share no beginning; \
                    give `prompt`, or make `chosen` and `rejected` lists of messages"
                .into(),
        );
    }
    Ok(prompt)
}
