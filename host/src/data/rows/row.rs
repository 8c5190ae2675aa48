//! A row as it was read: its place, its parts and its columns; and the rows of a data set on both sides of the split.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::counts::MixedSource;
use super::kind::{Part, RowKind};
use super::message::{self, ASSISTANT, Message, role};
use super::read::formats::Format;
use super::store::Rows;
use crate::data::source::{Place, Source};

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

/// Rows to train on and held-out rows; no question is on both sides.
#[derive(Clone, Debug, Default)]
pub struct RowCorpus {
    /// Its name in messages.
    pub name: String,
    /// The kind of its rows.
    pub kind: RowKind,
    /// Rows to train on.
    pub train: Arc<Rows>,
    /// Rows to evaluate on; empty if none were requested.
    pub held_out: Arc<Rows>,
    /// Number of training rows removed because their prompt is held out.
    pub leaks: usize,
    /// The files that they came from.
    pub sources: Vec<Source>,
    /// How many rows were read in which format; empty for generated rows.
    pub formats: BTreeMap<Format, usize>,
    /// The sources of a mixture, in the order of the rows' numbers of sources; empty if there is one source.
    pub mix: Vec<MixedSource>,
    /// Rows left out because all their answers have the same score.
    pub same_score: usize,
}
