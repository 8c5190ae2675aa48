//! Writes a row as one text with its supervised spans. The text is tokenised as a whole: tokenising pieces
//! separately would give different tokens.

use std::ops::Range;

use serde_json::{Value, json};

use super::laid::Laid;
use super::places::{Conversation, Places};
use super::template::{ChatTemplate, DOCUMENTS, KWARGS, Variables};
use super::{learned, parts};
use crate::data::error::{DataError, Result};
use crate::data::rows::kind::Part;
use crate::data::rows::message::{ASSISTANT, Message, role, words};
use crate::data::rows::row::{Content, Row};

/// How rows are written.
pub struct RowLayout {
    /// Renders conversations.
    pub template: ChatTemplate,
    /// Whether prompts and completions that are strings are turned into a conversation too; otherwise they are
    /// joined unchanged.
    pub strings: bool,
}

impl RowLayout {
    /// Whether this row goes through the template.
    pub fn templates(&self, row: &Row) -> bool {
        self.strings || row.has_messages()
    }

    /// Whether this row's column `documents` reaches the template, and the template reads it.
    pub fn reads_documents(&self, row: &Row) -> bool {
        self.templates(row) && self.template.mentions(DOCUMENTS)
    }

    /// Writes a row up to its part `end`: an answer with its prompt, or the prompt alone, which then ends where an
    /// answer would begin. A row of whole `messages` is written completely.
    ///
    /// # Errors
    /// A template that fails, or in whose text the assistant's words cannot be found.
    pub fn lay_out(&self, row: &Row, end: Part) -> Result<Laid> {
        if !self.templates(row) {
            if row.columns.get(KWARGS).is_some_and(|variables| !variables.is_null()) {
                let what = "variables of a chat template, but no template writes this row; give messages, or data.chat_template";
                return Err(DataError::Json { place: row.place.clone(), key: KWARGS.to_owned(), what: what.into() });
            }
            if row.columns.get("tools").is_some_and(|tools| !tools.is_null()) {
                let what =
                    "descriptions of tools, but no template writes this row; give messages, or data.chat_template";
                return Err(DataError::Json { place: row.place.clone(), key: "tools".into(), what: what.into() });
            }
            return Ok(joined(row, end));
        }
        let refused = |(key, what): Refused| DataError::Json { place: row.place.clone(), key, what };
        let variables = Variables::of(row, &self.template).map_err(refused)?;
        let (prompt, messages) = conversation(row, end);
        let messages = parts::as_read(&self.template, &messages, &variables, end == Part::Prompt);
        if self.template.is_plain() && messages.iter().any(|message| message.get("content").is_none_or(Value::is_null))
        {
            let what = "a message has no content (it may only call tools), which the template \"plain\" cannot write: give \
                        data.chat_template a template that can";
            return Err(DataError::Json { place: row.place.clone(), key: String::new(), what: what.into() });
        }
        let laid = match end {
            Part::Prompt => self
                .template
                .render(&messages, &variables, true)
                .map(|opened| Laid { text: opened.text, ..Laid::default() })
                .map_err(unnamed),
            _ => self.lay_out_messages(prompt, &messages, &variables),
        };
        if matches!(end, Part::Chosen | Part::Rejected) {
            check_all_learned(&messages[prompt.min(messages.len())..]).map_err(refused)?;
        }
        let laid = laid.and_then(|laid| parts::check_written(&messages, &laid.text).map(|()| laid).map_err(unnamed));
        let laid = laid.and_then(|laid| parts::check_calls(&self.template, &messages, &laid.text).map(|()| laid));
        laid.map_err(refused)
    }

    /// Supervises the assistant's messages from number `prompt` on, except those flagged as not learned.
    fn lay_out_messages(&self, prompt: usize, messages: &[Message], variables: &Variables) -> Result<Laid, Refused> {
        let mut learned = Vec::with_capacity(messages.len());
        for (number, message) in messages.iter().enumerate() {
            let flag =
                learned::learned(message).map_err(|(key, what)| (key, format!("in message {}, {what}", number + 1)))?;
            learned.push(number >= prompt && flag.unwrap_or(true));
        }
        let whole = self.template.render(messages, variables, false).map_err(unnamed)?;
        let conversation = Conversation { template: &self.template, messages, variables, whole, learned };
        let Places { supervised, unplaced } = conversation.places().map_err(unnamed)?;
        let is_learned = |number: &usize| conversation.learned[*number] && role(&messages[*number]) == ASSISTANT;
        let has_words = |number: usize| !words(&messages[number]).trim().is_empty();
        let is_blank = |span: &Range<usize>| {
            conversation.whole.text.chars().take(span.end).skip(span.start).all(char::is_whitespace)
        };
        if (0..messages.len()).filter(is_learned).any(has_words) && supervised.iter().all(is_blank) {
            return Err(unnamed(
                "the chat template writes none of the assistant's words, or its {% generation %} marks enclose nothing, so that \
                 only the end of text would be learned; give data.chat_template a template that writes them"
                    .to_owned(),
            ));
        }
        let mut answers = (0..messages.len()).filter(|number| role(&messages[*number]) == ASSISTANT).peekable();
        let is_unlearned = answers.peek().is_some() && answers.all(|number| !conversation.learned[number]);
        let is_exact = conversation.whole.marked.is_some() && !self.template.is_plain();
        let keeps_ending = is_exact && messages.last().is_some_and(|last| role(last) == ASSISTANT);
        Ok(Laid { text: conversation.whole.text, supervised, unplaced, is_exact, keeps_ending, is_unlearned })
    }
}

/// Refuses answers of a pair with a message that is flagged as not learned: answers of pairs are compared as a
/// whole.
fn check_all_learned(answers: &[Message]) -> Result<(), Refused> {
    for message in answers {
        if learned::learned(message)? == Some(false) {
            let what = "a message of an answer is flagged as not learned, and answers of pairs are compared whole";
            return Err(unnamed(what.to_owned()));
        }
    }
    Ok(())
}

/// The key of the row that is wrong (empty if none in particular), and what is wrong.
type Refused = (String, String);

fn unnamed(what: String) -> Refused {
    (String::new(), what)
}

/// Joins strings unchanged.
fn joined(row: &Row, end: Part) -> Laid {
    let text = |part: Part| match row.parts.get(&part) {
        Some(Content::Text(text)) => text.as_str(),
        _ => "",
    };
    let prompt = text(Part::Prompt);
    if end == Part::Prompt {
        return Laid { text: prompt.to_owned(), ..Laid::default() };
    }
    let (boundary, answer) = (prompt.chars().count(), text(end));
    let learned = boundary..boundary + answer.chars().count();
    Laid { text: format!("{prompt}{answer}"), supervised: Vec::from([learned]), ..Laid::default() }
}

/// Returns a row's messages up to its part `end`, and how many of them are the prompt.
pub(super) fn conversation(row: &Row, end: Part) -> (usize, Vec<Message>) {
    let part = |part: Part, role: &str| match row.parts.get(&part) {
        Some(Content::Messages(messages)) => messages.clone(),
        Some(Content::Text(text)) => json!({"role": role, "content": text}).as_object().cloned().into_iter().collect(),
        None => Vec::new(),
    };
    let mut messages = part(Part::Prompt, "user");
    let prompt = messages.len();
    if end != Part::Prompt {
        messages.extend(part(end, ASSISTANT));
        messages.extend(part(Part::Messages, ""));
    }
    (prompt, messages)
}
