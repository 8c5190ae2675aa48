//! Rows: prompts with completions, and whatever else a data set says of them, from JSON lines to token ids.
//!
//! | step | file |
//! |---|---|
//! | read JSON lines into parts and columns, with file and line | [`jsonl`] |
//! | hold some out, and never the same prompt on both sides | [`split`] |
//! | write a row as one text, and know which stretches are supervised | [`layout`], with [`template`] for chats |
//! | tokenise, cut to length, drop what has nothing left to learn | [`encode`] |
//!
//! A row is a set of named parts, so that other kinds of rows (a prompt with a chosen and a rejected answer) are another
//! [`Shape`] and another layout, and everything before and after stays.

pub mod encode;
pub mod jsonl;
pub mod layout;
pub mod split;
pub mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use encode::{RowCounts, RowSet, Truncation};
pub use jsonl::RowOptions;
pub use template::ChatTemplate;

/// A part of a row, by the field's usual column name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A whole conversation: `messages`.
    Messages,
    /// What is asked: `prompt`.
    Prompt,
    /// What is to be answered: `completion`.
    Completion,
}

impl Part {
    /// The column's name.
    pub fn name(self) -> &'static str {
        match self {
            Part::Messages => "messages",
            Part::Prompt => "prompt",
            Part::Completion => "completion",
        }
    }
}

/// The parts that a kind of row has.
pub type Shape = &'static [Part];

/// Rows for instruction tuning. The first shape that a row has all parts of is the row's; other keys are columns.
pub const PROMPT_COMPLETION: &[Shape] = &[&[Part::Messages], &[Part::Prompt, Part::Completion]];

/// What a part holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A string.
    Text(String),
    /// Messages in order, at least one.
    Messages(Vec<Message>),
}

/// One message of a conversation: `role`, `content` and whatever else the template reads, as in the file.
pub type Message = Map<String, Value>;

/// The role of a message; "" where it has none.
pub fn role(message: &Message) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

/// The role whose messages are learned.
pub const ASSISTANT: &str = "assistant";

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or a name such as "synthetic".
    pub file: Arc<str>,
    /// Its line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What a row says beside its tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowText {
    /// The prompt.
    pub prompt: String,
    /// Its columns.
    pub columns: Vec<(String, plugin_api::reward::Column)>,
    /// The right answer, where the row has one.
    pub answer: Option<String>,
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
    /// What is asked, in one string that is the same for the same question: a prompt, or the messages before the first
    /// answer. Space around it does not count.
    pub fn question(&self) -> String {
        let messages = match self.parts.get(&Part::Prompt).or(self.parts.get(&Part::Messages)) {
            Some(Content::Text(text)) => return text.trim().to_owned(),
            Some(Content::Messages(messages)) => messages.as_slice(),
            None => &[],
        };
        let asked = messages.iter().take_while(|message| role(message) != ASSISTANT);
        let text =
            |message: &Message| message.get("content").and_then(Value::as_str).unwrap_or_default().trim().to_owned();
        asked.map(|message| format!("{}: {}\n", role(message), text(message))).collect()
    }
}

/// Rows to train on and rows held out; no question is on both sides.
#[derive(Clone, Debug, Default)]
pub struct RowCorpus {
    /// What to call it in messages.
    pub name: String,
    /// Rows to train on.
    pub train: Vec<Row>,
    /// Rows to evaluate on; empty where none were asked for.
    pub held_out: Vec<Row>,
    /// Training rows left out since their prompt is held out.
    pub leaks: usize,
    /// Where they came from.
    pub sources: Vec<super::Source>,
}
