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

    /// The question as one string, which is the same for the same question: the prompt, or the messages before the
    /// first answer. White space at the ends does not count. A row without a question, such as a text, stands for itself: its answer
    /// is returned.
    pub fn question(&self) -> String {
        let question = match self.parts.get(&Part::Prompt).or(self.parts.get(&Part::Messages)) {
            Some(content) => text_of(content, |message| role(message) != ASSISTANT),
            None => String::new(),
        };
        if !question.is_empty() {
            return question;
        }
        let answers = [Part::Messages, Part::Completion, Part::Chosen];
        answers.iter().find_map(|part| self.parts.get(part)).map_or(String::new(), |part| text_of(part, |_| true))
    }
}

/// A content as one string: of messages, those at the beginning for which `taken` is true.
fn text_of(content: &Content, taken: impl Fn(&Message) -> bool) -> String {
    match content {
        Content::Text(text) => text.trim().to_owned(),
        Content::Messages(messages) => {
            let taken = messages.iter().take_while(|message| taken(message));
            taken.map(|message| format!("{}: {}\n", role(message), message::words(message).trim())).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::data::rows::{Columns, RowKind, read::jsonl};

    /// Catches rows without a question that count as rows of one question, so that all of them are on one side of the split.
    #[test]
    fn rows_without_a_question_stand_for_themselves() {
        let lines = [
            r#"{"prompt": " ", "completion": "a"}"#,
            r#"{"text": "b"}"#,
            r#"{"messages": [{"role": "assistant", "content": "c"}]}"#,
            r#"{"prompt": "q", "completion": "d"}"#,
        ];
        let question = |line: &str| {
            let rows = jsonl::parse("f.jsonl".as_ref(), line, RowKind::PromptCompletion, &Columns::new());
            rows.unwrap_or_else(|error| panic!("{line}: {error}"))[0].question()
        };
        assert_eq!(lines.map(question), ["a", "b", "assistant: c\n", "q"]);
    }
}
