//! A row as it was read: its place, its parts and its columns.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::kind::Part;
use super::message::{self, ASSISTANT, Message, role};
use crate::data::place::Place;

/// The content of a part.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A string.
    Text(String),
    /// Messages in order, at least one.
    Messages(Vec<Message>),
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its place in the file.
    pub place: Place,
    /// Its parts.
    pub parts: BTreeMap<Part, Content>,
    /// All other columns, by name.
    pub columns: Map<String, Value>,
    /// Where the segments of the completion end, in code points from its beginning; empty if it is one text.
    pub segments: Vec<usize>,
}

impl Row {
    /// Whether it has a part or a column of this name.
    pub fn has(&self, name: &str) -> bool {
        self.columns.contains_key(name) || self.parts.keys().any(|part| part.name() == name)
    }

    /// Whether a part of it consists of messages, which only a chat template can write.
    pub fn has_messages(&self) -> bool {
        self.parts.values().any(|content| matches!(content, Content::Messages(_)))
    }

    /// Whether this part is a string without a character other than white space.
    pub fn is_blank(&self, part: Part) -> bool {
        matches!(self.parts.get(&part), Some(Content::Text(text)) if text.trim().is_empty())
    }

    /// The question as one string, which is the same for the same question: the prompt, or the messages before the
    /// first answer. White space at the ends does not count.
    pub fn question(&self) -> String {
        let conversation = match self.parts.get(&Part::Prompt).or(self.parts.get(&Part::Messages)) {
            Some(Content::Text(text)) => return text.trim().to_owned(),
            Some(Content::Messages(messages)) => messages.as_slice(),
            None => &[],
        };
        let question = conversation.iter().take_while(|message| role(message) != ASSISTANT);
        question.map(|message| format!("{}: {}\n", role(message), message::words(message).trim())).collect()
    }
}
