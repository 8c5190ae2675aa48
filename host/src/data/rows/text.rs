//! The part of a row that rewards and evaluation read: its text, not its tokens.

use plugin_api::reward::Column;
use serde_json::{Map, Value};

use super::kind::{ANSWER, LABEL, Part, RowKind};
use super::message::{ASSISTANT, Message, role, words};
use super::row::{Content, Row};
use super::store::corpus::RowCorpus;
use crate::data::error::Result;

/// The text of a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowText {
    /// The prompt as the user wrote it: a string with its surrounding white space; the content of the only message;
    /// or several messages as `role: content`, one per line.
    pub prompt: String,
    /// The columns in the row's order: texts, numbers (true is 1), and lists and objects as their JSON. An integer
    /// that a 64-bit float cannot hold exactly is a text.
    pub columns: Vec<(String, Column)>,
    /// The row's answer: its completion, its chosen answer or, for a prompt, the column `answer`, `completion` or
    /// `chosen`; the first one of a list of right answers.
    pub answer: Option<String>,
    /// The other right answers, if the row has a list of them.
    pub more_answers: Vec<String>,
    /// Whether the end of the answer is missing: the answer was cut off in the data, or truncated to length.
    pub is_cut: bool,
    /// For a prompt, the row as in the file: prompt and columns. Empty for other kinds.
    pub written: Map<String, Value>,
}

impl RowText {
    /// Everything that rewards and evaluation read, for a hash.
    pub(super) fn hashed(&self) -> String {
        let RowText { prompt, columns, answer, more_answers, .. } = self;
        let text = format!("RowText {{ prompt: {prompt:?}, columns: {columns:?}, answer: {answer:?} }}");
        if more_answers.is_empty() { text } else { format!("{text}{more_answers:?}") }
    }
}

impl Row {
    /// Returns the row's text.
    pub fn text(&self) -> RowText {
        let mut answers = self.answers().into_iter();
        RowText {
            prompt: self.prompt_text(),
            columns: self.named_columns(),
            answer: answers.next(),
            more_answers: answers.collect(),
            is_cut: false,
            written: self.written(),
        }
    }

    fn prompt_text(&self) -> String {
        let messages = match self.parts.get(&Part::Prompt).or(self.parts.get(&Part::Messages)) {
            Some(Content::Text(text)) => return text.clone(),
            Some(Content::Messages(messages)) => messages.as_slice(),
            None => &[],
        };
        let whole = self.parts.contains_key(&Part::Prompt);
        let prompt: Vec<&Message> = messages.iter().take_while(|m| whole || role(m) != ASSISTANT).collect();
        match prompt.as_slice() {
            [only] => words(only).into_owned(),
            several => several.iter().map(|message| format!("{}: {}\n", role(message), words(message))).collect(),
        }
    }

    fn named_columns(&self) -> Vec<(String, Column)> {
        let column = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(Column::Text(text.clone())),
            Value::Array(_) | Value::Object(_) => Some(Column::Json(value.to_string())),
            other => Some(number(other).map_or_else(|| Column::Text(other.to_string()), Column::Number)),
        };
        self.columns.iter().filter_map(|(name, value)| Some((name.clone(), column(value)?))).collect()
    }

    fn answers(&self) -> Vec<String> {
        for part in [Part::Completion, Part::Chosen, Part::Messages] {
            match self.parts.get(&part) {
                Some(Content::Text(text)) => return vec![text.clone()],
                Some(Content::Messages(messages)) => {
                    let answer = messages.iter().find(|message| role(message) == ASSISTANT);
                    return answer.map(|message| words(message).into_owned()).into_iter().collect();
                }
                None => {}
            }
        }
        let one = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let message_text = |value: &Value| -> Option<String> {
            let messages = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter();
            let mut messages = messages.filter_map(Value::as_object);
            messages.find(|message| role(message) == ASSISTANT).map(|message| words(message).into_owned())
        };
        let answers = [ANSWER, "completion", "chosen"].iter().find_map(|name| match self.columns.get(*name)? {
            // An answer to a prompt of messages is a message too.
            value if *name != ANSWER && message_text(value).is_some() => message_text(value).map(|answer| vec![answer]),
            Value::Array(list) => Some(list.iter().filter_map(one).collect()),
            value => one(value).map(|answer| vec![answer]),
        });
        answers.unwrap_or_default()
    }

    fn written(&self) -> Map<String, Value> {
        let prompt = match (self.parts.len(), self.parts.get(&Part::Prompt)) {
            (1, Some(Content::Text(text))) => text.clone().into(),
            (1, Some(Content::Messages(messages))) => {
                Value::Array(messages.iter().map(|message| Value::Object(message.clone())).collect())
            }
            _ => return Map::new(),
        };
        let mut row = Map::from_iter([(Part::Prompt.name().to_owned(), prompt)]);
        row.extend(self.columns.clone());
        row
    }
}

impl RowCorpus {
    /// The label of all rows to train on, if they have labels and all have the same one.
    ///
    /// # Errors
    /// Rows that cannot be read again.
    pub fn only_label(&self) -> Result<Option<bool>> {
        let mut only = None;
        if self.kind == RowKind::Unpaired {
            for row in self.train.iter() {
                let label = row?.columns.get(LABEL).and_then(number);
                if label.is_none() || only.is_some_and(|only| Some(only) != label) {
                    return Ok(None);
                }
                only = label;
            }
        }
        Ok(only.map(|label| label != 0.0))
    }
}

/// A list of numbers, or of true and false as 1 and 0; `None` for anything else.
pub fn numbers(value: &Value) -> Option<Vec<f64>> {
    value.as_array()?.iter().map(number).collect()
}

/// A number, or true and false as 1 and 0; `None` for an integer that a 64-bit float cannot hold exactly, and for
/// anything else.
pub fn number(value: &Value) -> Option<f64> {
    let float = match value {
        Value::Bool(truth) => return Some(f64::from(u8::from(*truth))),
        Value::Number(number) => number.as_f64()?,
        _ => return None,
    };
    let exact = match (value.as_i64(), value.as_u64()) {
        (Some(integer), _) => float as i128 == i128::from(integer),
        (None, Some(integer)) => float as i128 == i128::from(integer),
        (None, None) => true,
    };
    exact.then_some(float)
}
