//! Finds the assistant's answers in the whole text of a conversation.
//!
//! | what the template does | how they are found |
//! |---|---|
//! | marks answers with `{% generation %}` | the union of all marks of a message that is learned |
//! | writes each message the same, whatever follows | by prefix: an answer begins at the end of the text of the messages before it, rendered with the generation prompt, and ends at the end of the text up to and including it |
//! | writes earlier answers differently once later messages follow, or begins answers differently from its generation prompt | by stand-in: the conversation is rendered again with other words in place of the answer, and what differs is the answer |
//!
//! In every case the text of the whole conversation is tokenised. The other renders only serve to find places in
//! it.

use std::ops::Range;

use serde_json::{Value, json};

use super::template::{ChatTemplate, Marked, REASONING, Rendered, Variables};
use crate::data::rows::message::{ASSISTANT, Message, role};

/// Words that stand in for an answer: private-use characters, which belong to no script, so that no template
/// changes them.
pub const STAND_IN: &str = "\u{E0F0}\u{E0F1}\u{E0F2}\u{E0F3}";

/// A conversation with its text.
pub struct Conversation<'a> {
    /// The template that wrote it.
    pub template: &'a ChatTemplate,
    /// Its messages.
    pub messages: &'a [Message],
    /// The other variables that the template was given.
    pub variables: &'a Variables,
    /// All of it, rendered.
    pub whole: Rendered,
    /// For each message, whether it is learned if it is the assistant's.
    pub learned: Vec<bool>,
}

/// The places of the answers.
pub struct Places {
    /// The answers to be learned, in code points, ascending, without overlaps.
    pub supervised: Vec<Range<usize>>,
    /// Earlier answers that were not found.
    pub unplaced: usize,
}

/// A text that contains an answer's stand-in: the text before it and after it.
struct Around {
    before: String,
    after: String,
}

impl Conversation<'_> {
    /// Returns the places of the answers that are learned.
    ///
    /// # Errors
    /// Why the last of them cannot be found, or why a mark cannot be assigned to a message.
    pub fn places(&self) -> Result<Places, String> {
        if let Some(marked) = &self.whole.marked {
            return Ok(Places { supervised: self.of_marks(marked)?, unplaced: 0 });
        }
        let answers: Vec<usize> = self.answers().filter(|number| self.learned[*number]).collect();
        let (mut supervised, mut unplaced): (Vec<Range<usize>>, usize) = (Vec::new(), 0);
        for number in &answers {
            let from = supervised.last().map_or(0, |last| last.end);
            match self.find(*number).filter(|place| place.start >= from) {
                Some(place) => supervised.push(place),
                // An answer that the template leaves out of the text cannot be learned.
                None if *number + 1 < self.messages.len() || Some(number) != answers.last() => unplaced += 1,
                None => return Err(self.hidden(*number)),
            }
        }
        match supervised.is_empty() && unplaced > 0 {
            true => Err(self.hidden(answers.last().copied().unwrap_or_default())),
            false => Ok(Places { supervised, unplaced }),
        }
    }

    fn answers(&self) -> impl Iterator<Item = usize> {
        (0..self.messages.len()).filter(|number| role(&self.messages[*number]) == ASSISTANT)
    }

    fn hidden(&self, number: usize) -> String {
        format!(
            "the place of message {} in the chat template's text cannot be found: the text of the messages up to it is not the \
             beginning of the whole text, and other words in its place also change other parts of the text; put {{% generation %}} \
             and {{% endgeneration %}} around the assistant's words in data.chat_template",
            number + 1
        )
    }

    /// The union of the marks whose message is learned.
    fn of_marks(&self, marked: &[Marked]) -> Result<Vec<Range<usize>>, String> {
        let answers: Vec<usize> = self.answers().collect();
        let everything = answers.iter().all(|number| self.learned[*number]);
        let mut places = Vec::new();
        for (place, mark) in marked.iter().enumerate() {
            let learned = match mark.message {
                Some(number) => self.learned.get(number).copied().unwrap_or(true),
                None if everything => true,
                None if marked.len() == answers.len() => self.learned[answers[place]],
                None => {
                    return Err(format!(
                        "the chat template marks {} spans, but not to which of the {} messages of the assistant each belongs, and \
                         not all of them are learned; keep the message in a variable of its loop over `messages`",
                        marked.len(),
                        answers.len()
                    ));
                }
            };
            if learned {
                places.push(mark.place.clone());
            }
        }
        places.sort_by_key(|place| (place.start, place.end));
        let mut union: Vec<Range<usize>> = Vec::new();
        for place in places {
            match union.last_mut() {
                Some(last) if place.start < last.end => last.end = last.end.max(place.end),
                _ => union.push(place),
            }
        }
        Ok(union)
    }

    fn render(&self, messages: &[Message], open: bool) -> Result<String, String> {
        self.template.render(messages, self.variables, open).map(|rendered| rendered.text)
    }

    /// The place of answer number `answer`; `None` if it cannot be found in the template's text.
    fn find(&self, answer: usize) -> Option<Range<usize>> {
        let text = self.whole.text.as_str();
        // Some templates refuse a conversation that ends here.
        let before =
            self.render(&self.messages[..answer], true).ok().filter(|before| text.starts_with(before.as_str()));
        let until = match answer + 1 == self.messages.len() {
            true => Some(text.to_owned()),
            false => self.render(&self.messages[..=answer], false).ok(),
        };
        let until = until.filter(|until| text.starts_with(until.as_str()));
        let place = match (before, until) {
            (Some(before), Some(until)) if before.len() <= until.len() => Some(before.len()..until.len()),
            (before, until) => self.by_stand_in(answer).and_then(|found| {
                let start = before.map_or(found.start, |before| before.len());
                let end = until.map_or(found.end, |until| until.len());
                (start <= end && start <= found.start && found.start <= end).then_some(start..end)
            }),
        };
        let count = |byte: usize| text[..byte].chars().count();
        place.map(|place| count(place.start)..count(place.end))
    }

    /// The bytes that change when other words replace the answer, together with what closes it.
    fn by_stand_in(&self, answer: usize) -> Option<Range<usize>> {
        let text = self.whole.text.as_str();
        let message = &self.messages[answer];
        let mut bare = Message::new();
        bare.insert("role".to_owned(), message.get("role").cloned().unwrap_or_default());
        bare.insert("content".to_owned(), STAND_IN.into());
        let mut content_only = message.clone();
        content_only.insert("content".to_owned(), STAND_IN.into());
        let mut with_reasoning = bare.clone();
        let reasoning = message.iter().filter(|(key, _)| REASONING.contains(&key.as_str()));
        with_reasoning.extend(reasoning.map(|(key, value)| (key.clone(), value.clone())));
        let mut in_parts = bare.clone();
        in_parts.insert("content".to_owned(), json!([{"type": "text", "text": STAND_IN}]));
        for stand_in in [bare, with_reasoning, content_only, in_parts] {
            let mut messages = self.messages.to_vec();
            messages[answer] = stand_in;
            let Some(around) = self.render(&messages, false).ok().and_then(|text| around(&text)) else { continue };
            let fits = around.before.len() + around.after.len() <= text.len();
            if !fits || !text.starts_with(&around.before) || !text.ends_with(&around.after) {
                continue;
            }
            let (start, end) = (around.before.len(), text.len() - around.after.len());
            if start == end && !is_blank(message) {
                return None;
            }
            let closing = self.render(&messages[..=answer], false).ok().and_then(|text| self::around(&text));
            let closing = closing.map_or(0, |closing| shared(&closing.after, &text[end..]));
            return Some(start..end + closing);
        }
        None
    }
}

/// The text around the stand-in, if that occurs exactly once.
fn around(text: &str) -> Option<Around> {
    let (before, after) = text.split_once(STAND_IN)?;
    (!after.contains(STAND_IN)).then(|| Around { before: before.to_owned(), after: after.to_owned() })
}

/// Whether a message has nothing that a template could write.
fn is_blank(message: &Message) -> bool {
    let blank = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    message.iter().filter(|(key, _)| *key != "role").all(|(_, value)| blank(value))
}

/// How much of `closing`, which ends a conversation whose last message is the answer, also follows the answer in
/// the middle of a conversation. Part of a tag where the two differ does not count: `<|end|>\n` counts, but a `<|` that
/// follows it in both does not.
fn shared(closing: &str, after: &str) -> usize {
    if after.starts_with(closing) {
        return closing.len();
    }
    let same = closing.char_indices().zip(after.chars()).take_while(|((_, a), b)| a == b);
    let tag_ends = |c: char| c.is_whitespace() || ['>', ']', '}', ')'].contains(&c);
    same.filter(|((_, c), _)| tag_ends(*c)).last().map_or(0, |((at, c), _)| at + c.len_utf8())
}
