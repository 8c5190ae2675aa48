//! The reward contract: one number for each finished sample, and optionally named parts of it and numbers for passages of its text.

use serde_json::Value;

use crate::{Result, manifest::RewardManifest, options::OptionSet};

/// A column of the sample's row: a text, a number, or a list or an object.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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
    /// Whether the model ended the completion, by an end token for example; it was not cut off at the length limit.
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

/// A number for a passage of a completion: a segment, a turn, a word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Its first character, counted from 0 in Unicode scalar values (`chars()`) of [`Sample::completion`].
    pub start: usize,
    /// The character after its last one: greater than `start`.
    pub end: usize,
    /// The number; higher is better.
    pub value: f64,
}

impl Span {
    /// A number for these characters.
    pub fn new(characters: std::ops::Range<usize>, value: f64) -> Self {
        Self { start: characters.start, end: characters.end, value }
    }
}

/// What a reward finds in a sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rating {
    /// The score: the same number that [`Reward::score`] returns.
    pub score: f64,
    /// The parts that [`RewardManifest::parts`] declares, each once, with their numbers.
    pub parts: Vec<(String, f64)>,
    /// Numbers for passages of the completion, in the order of the text and without overlaps; none unless
    /// [`RewardManifest::spans`] is set. The host adds each one's value to `reward.NAME.token` at the token that holds the span's
    /// last character, so that the sums over spans and over tokens are equal.
    pub spans: Vec<Span>,
}

impl From<f64> for Rating {
    /// A score without parts and spans.
    fn from(score: f64) -> Rating {
        Rating { score, ..Rating::default() }
    }
}

/// A reward with its options.
pub trait Reward {
    /// Returns one score per sample; higher is better. The host refuses NaN.
    ///
    /// # Errors
    /// The plugin's own; [`crate::Code::ARRAY`] naming a column that is missing.
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>>;

    /// Returns the score of each sample with its parts and spans. The host calls it instead of [`Reward::score`] if the manifest
    /// declares parts or spans, and refuses everything that [`crate::contract::ratings`] lists.
    ///
    /// ```
    /// use plugin_api::prelude::*;
    ///
    /// /// The number of words, and half a point at the end of each `because`.
    /// struct Reasons;
    ///
    /// impl Reward for Reasons {
    ///     fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
    ///         Ok(samples.iter().map(|sample| sample.completion.split_whitespace().count() as f64).collect())
    ///     }
    ///
    ///     fn rate(&self, samples: &[Sample]) -> Result<Vec<Rating>> {
    ///         let rating = |(sample, score): (&Sample, f64)| {
    ///             let text = &sample.completion;
    ///             let start = |byte| text[..byte].chars().count();
    ///             let found = text.match_indices("because").map(|(byte, word)| (start(byte), word.chars().count()));
    ///             let spans: Vec<Span> = found.map(|(start, length)| Span::new(start..start + length, 0.5)).collect();
    ///             let parts = vec![("reasons".to_owned(), spans.len() as f64)];
    ///             Rating { parts, spans, ..Rating::from(score) }
    ///         };
    ///         Ok(samples.iter().zip(self.score(samples)?).map(rating).collect())
    ///     }
    /// }
    /// let sample = Sample { completion: "É, because".into(), ..Sample::default() };
    /// assert_eq!(Reasons.rate(&[sample])?[0].spans, [Span::new(3..10, 0.5)]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Reward::score`].
    fn rate(&self, samples: &[Sample]) -> Result<Vec<Rating>> {
        Ok(self.score(samples)?.into_iter().map(Rating::from).collect())
    }
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
