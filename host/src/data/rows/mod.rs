//! Rows: prompts with what may be answered, and whatever else a data set says of them, from JSON lines to token ids.
//!
//! | step | file |
//! |---|---|
//! | which parts the rows of each kind have | [`kind`] |
//! | read JSON into values, with file and line, strictly | [`items`], [`json`], with [`integers`] for large numbers |
//! | make parts and columns of them | [`jsonl`], with [`messages`], [`pair`] for the prompt of two answers, [`shapes`] of other tools |
//! | hold some out, and never the same prompt on both sides | [`split`] |
//! | write a row as text, and know which stretches are supervised | [`layout`], with [`template`], [`places`] and [`learned`] for chats |
//! | see to contents in parts, unusual roles and answers that were cut off | [`parts`] |
//! | tokenise, cut to length, drop what has nothing left to learn, count | [`encode`], [`counts`] |
//! | hold the tokens in rows, and what rewards read of each | [`set`], [`text`] |
//! | name the columns that nothing reads, and what a template leaves out of messages | [`unread`], [`unwritten`] |

pub mod counts;
pub mod encode;
pub mod integers;
pub mod items;
pub mod json;
pub mod jsonl;
pub mod kind;
pub mod layout;
pub mod learned;
pub mod messages;
pub mod pair;
pub mod parts;
pub mod places;
pub mod set;
pub mod shapes;
pub mod split;
pub mod template;
pub mod text;
pub mod unread;
pub mod unwritten;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use counts::RowCounts;
pub use encode::Truncation;
pub use jsonl::{Columns, RowOptions};
pub use kind::{Part, RowKind};
pub use set::RowSet;
pub use template::ChatTemplate;
pub use text::RowText;

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
        asked.map(|message| format!("{}: {}\n", role(message), messages::words(message).trim())).collect()
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
    pub sources: Vec<super::Source>,
}
