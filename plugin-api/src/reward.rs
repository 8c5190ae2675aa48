//! The reward contract: one number for each finished sample.

use serde_json::Value;

use crate::{Result, manifest::RewardManifest, options::OptionSet};

/// A column of the sample's row: a text, a number, or a list or an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Text.
    Text(String),
    /// Number.
    Number(f64),
    /// A list or an object, as its JSON.
    Json(String),
}

/// A prompt, the policy's answer, and the other columns of the prompt's row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// The prompt's text.
    pub prompt: String,
    /// The completion's text, without its end marker.
    pub completion: String,
    /// Whether the completion ended with an end token or a stop text, and not at the length limit.
    pub ended: bool,
    /// All of the row's other columns, by name, whether the reward declares them or not. The host checks declared columns in all
    /// rows before the first step; a column that is read without being declared fails in mid-run, at the first row without it.
    pub columns: Vec<(String, Column)>,
}

impl Sample {
    /// The text of a column, or the JSON of a list or an object.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.columns.iter().find(|(n, _)| n == name)? {
            (_, Column::Text(text) | Column::Json(text)) => Some(text),
            _ => None,
        }
    }

    /// The value of a column that is a list or an object in the row; `None` for numbers, and for texts even if they contain JSON.
    pub fn json(&self, name: &str) -> Option<Value> {
        match self.columns.iter().find(|(n, _)| n == name)? {
            (_, Column::Json(text)) => serde_json::from_str(text).ok(),
            _ => None,
        }
    }

    /// The number of a column.
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.columns.iter().find(|(n, _)| n == name)? {
            (_, Column::Number(number)) => Some(*number),
            _ => None,
        }
    }
}

/// A reward with its options.
pub trait Reward {
    /// Returns one score per sample; higher is better. The host refuses NaN.
    ///
    /// # Errors
    /// The plugin's own; [`crate::Code::ARRAY`] naming a column that is missing.
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>>;
}

/// A reward as a plugin.
pub trait RewardPlugin: Reward + Sized + 'static {
    /// Declared by [`options!`](crate::options!); `()` for none.
    type Options: OptionSet;

    /// Returns its description. The export fills in id, version and options.
    fn manifest() -> RewardManifest;

    /// Creates an instance.
    ///
    /// # Errors
    /// [`crate::Code::OPTION`] naming the key.
    fn create(options: Self::Options) -> Result<Self>;
}
