//! What rewards and evaluation read of a row: its words, not its tokens.

use plugin_api::reward::Column;
use serde_json::Value;

use super::{ASSISTANT, Content, Message, Part, Row, role};

/// A row in words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowText {
    /// What is asked, as the user wrote it: a string with the space around it, the content of the only message, or of several
    /// messages `role: content` in a line each.
    pub prompt: String,
    /// The columns in the row's order: texts, and numbers (true is 1). A list or an object is its JSON.
    pub columns: Vec<(String, Column)>,
    /// The answer that the row gives: its completion, its chosen answer, or of a prompt the column `answer`, `completion` or
    /// `chosen`.
    pub answer: Option<String>,
}

impl Row {
    /// The row in words.
    pub fn text(&self) -> RowText {
        RowText { prompt: self.asked(), columns: self.named_columns(), answer: self.answer() }
    }

    fn asked(&self) -> String {
        let messages = match self.parts.get(&Part::Prompt).or(self.parts.get(&Part::Messages)) {
            Some(Content::Text(text)) => return text.clone(),
            Some(Content::Messages(messages)) => messages.as_slice(),
            None => &[],
        };
        let whole = self.parts.contains_key(&Part::Prompt);
        let asked: Vec<&Message> = messages.iter().take_while(|m| whole || role(m) != ASSISTANT).collect();
        match asked.as_slice() {
            [only] => content(only).to_owned(),
            several => several.iter().map(|message| format!("{}: {}\n", role(message), content(message))).collect(),
        }
    }

    fn named_columns(&self) -> Vec<(String, Column)> {
        let column = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(Column::Text(text.clone())),
            Value::Array(_) | Value::Object(_) => Some(Column::Text(value.to_string())),
            other => number(other).map(Column::Number),
        };
        self.columns.iter().filter_map(|(name, value)| Some((name.clone(), column(value)?))).collect()
    }

    fn answer(&self) -> Option<String> {
        for part in [Part::Completion, Part::Chosen, Part::Messages] {
            match self.parts.get(&part) {
                Some(Content::Text(text)) => return Some(text.clone()),
                Some(Content::Messages(messages)) => {
                    return messages.iter().find(|message| role(message) == ASSISTANT).map(|m| content(m).to_owned());
                }
                None => {}
            }
        }
        ["answer", "completion", "chosen"].iter().find_map(|name| match self.columns.get(*name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
    }
}

fn content(message: &Message) -> &str {
    message.get("content").and_then(Value::as_str).unwrap_or_default()
}

/// A number, or true and false as 1 and 0.
pub fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_bool().map(|truth| f64::from(u8::from(truth))))
}
