//! A row as one text with the stretches of it that are supervised. The text is tokenised whole; nothing is made of pieces
//! that were tokenised apart, because tokens of the pieces are not the tokens of the whole.

use std::ops::Range;

use serde_json::{Value, json};

use super::template::{ChatTemplate, Rendered};
use super::{ASSISTANT, Content, Message, Part, Row, role};
use crate::data::{DataError, Result};

/// A row as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laid {
    /// All of it.
    pub text: String,
    /// What is learned, in code points, ascending; an empty stretch at the end stands for an empty completion.
    pub supervised: Vec<Range<usize>>,
}

/// How rows are written.
pub struct Layout {
    /// Renders conversations.
    pub template: ChatTemplate,
    /// Whether prompts and completions that are strings are made a conversation too; else they are joined as they are.
    pub strings: bool,
}

impl Layout {
    /// Whether this row goes through the template.
    pub fn templates(&self, row: &Row) -> bool {
        self.strings || row.has_messages()
    }

    /// Writes a row as far as its part `end`: an answer with what it answers, or the prompt alone, which then ends where an
    /// answer would begin. Of a row of whole `messages`, all of them.
    ///
    /// # Errors
    /// A template that fails, or that does not tell the assistant's words from the others'.
    pub fn lay_out(&self, row: &Row, end: Part) -> Result<Laid> {
        if !self.templates(row) {
            return Ok(joined(row, end));
        }
        let (prompt, messages) = conversation(row, end);
        if self.template.is_plain() && messages.iter().any(|message| message.get("content").is_none_or(Value::is_null))
        {
            let what = "a message has no content, as one that only calls tools, and the template \"plain\" has no words for \
                        that: give data.chat_template one that has";
            return Err(DataError::Json { place: row.place.clone(), key: String::new(), what: what.into() });
        }
        let laid = match end {
            Part::Prompt => {
                let opened = self.template.render(&messages, true);
                opened.map(|rendered| Laid { text: rendered.text, supervised: Vec::new() })
            }
            _ => self.lay_out_messages(prompt, &messages),
        };
        laid.map_err(|what| DataError::Json { place: row.place.clone(), key: String::new(), what })
    }

    /// Supervised are the assistant's messages from number `prompt` on.
    fn lay_out_messages(&self, prompt: usize, messages: &[Message]) -> Result<Laid, String> {
        let Rendered { text, spans } = self.template.render(messages, false)?;
        let answers: Vec<usize> = (0..messages.len()).filter(|i| role(&messages[*i]) == ASSISTANT).collect();
        let spans = match spans {
            Some(spans) if spans.len() == answers.len() => spans,
            Some(spans) => {
                let (marked, said) = (spans.len(), answers.len());
                return Err(format!("the chat template marks {marked} stretches of {said} messages of the assistant"));
            }
            None => {
                let ends = answers.iter().map(|answer| self.by_prefix(messages, *answer, &text));
                ends.collect::<Result<Vec<_>, _>>()?
            }
        };
        let learned = answers.into_iter().zip(spans).filter(|(answer, _)| *answer >= prompt);
        Ok(Laid { text, supervised: learned.map(|(_, span)| span).collect() })
    }

    /// Where message number `answer` stands in the whole `text` of a template that marks nothing: from the end of what comes
    /// before it, the opening of the assistant's message included, to the end of what is rendered with it.
    fn by_prefix(&self, messages: &[Message], answer: usize, text: &str) -> Result<Range<usize>, String> {
        let before = self.template.render(&messages[..answer], true)?.text;
        let with = self.template.render(&messages[..=answer], false)?.text;
        if !text.starts_with(&with) || !with.starts_with(&before) {
            return Err(format!(
                "the chat template does not say where message {} of the assistant begins and ends: it renders earlier \
                 messages differently once later ones follow; put {{% generation %}} and {{% endgeneration %}} around the \
                 assistant's words in data.chat_template",
                answer + 1
            ));
        }
        Ok(before.chars().count()..with.chars().count())
    }
}

/// Strings as they are, one behind the other.
fn joined(row: &Row, end: Part) -> Laid {
    let text = |part: Part| match row.parts.get(&part) {
        Some(Content::Text(text)) => text.as_str(),
        _ => "",
    };
    let prompt = text(Part::Prompt);
    if end == Part::Prompt {
        return Laid { text: prompt.to_owned(), supervised: Vec::new() };
    }
    let (boundary, answer) = (prompt.chars().count(), text(end));
    let learned = boundary..boundary + answer.chars().count();
    Laid { text: format!("{prompt}{answer}"), supervised: Vec::from([learned]) }
}

/// A row's messages as far as its part `end`, and how many of them are the prompt.
fn conversation(row: &Row, end: Part) -> (usize, Vec<Message>) {
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
