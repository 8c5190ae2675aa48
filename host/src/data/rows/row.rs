//! A row as it was read: its place, its parts and its columns; and the rows of a data set on both sides of the split.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::kind::{Part, RowKind};
use super::message::{self, ASSISTANT, Message, role};
use crate::data::source::{Place, Source};

/// What a part holds.
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
    /// Where it stands.
    pub place: Place,
    /// Its parts.
    pub parts: BTreeMap<Part, Content>,
    /// Everything else it says, by name.
    pub columns: Map<String, Value>,
}

impl Row {
    /// Whether it has a part or a column of this name.
    pub fn has(&self, name: &str) -> bool {
        self.columns.contains_key(name) || self.parts.keys().any(|part| part.name() == name)
    }

    /// Whether a part of it is messages, which only a chat template can write.
    pub fn has_messages(&self) -> bool {
        self.parts.values().any(|content| matches!(content, Content::Messages(_)))
    }

    /// What is asked, in one string that is the same for the same question: a prompt, or the messages before the first
    /// answer. Space around it does not count.
    pub fn question(&self) -> String {
        let conversation = match self.parts.get(&Part::Prompt).or(self.parts.get(&Part::Messages)) {
            Some(Content::Text(text)) => return text.trim().to_owned(),
            Some(Content::Messages(messages)) => messages.as_slice(),
            None => &[],
        };
        let asked = conversation.iter().take_while(|message| role(message) != ASSISTANT);
        asked.map(|message| format!("{}: {}\n", role(message), message::words(message).trim())).collect()
    }
}

/// Rows to train on and rows held out; no question is on both sides.
#[derive(Clone, Debug, Default)]
pub struct RowCorpus {
    /// What to call it in messages.
    pub name: String,
    /// Of which kind they are.
    pub kind: RowKind,
    /// Rows to train on.
    pub train: Vec<Row>,
    /// Rows to evaluate on; empty where none were asked for.
    pub held_out: Vec<Row>,
    /// Training rows left out since their prompt is held out.
    pub leaks: usize,
    /// Where they came from.
    pub sources: Vec<Source>,
}
