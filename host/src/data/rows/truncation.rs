//! What happens to rows that are too long or too short.

use crate::keys::words;

words! {
    /// How a row that is too long is shortened.
    pub enum Truncation {
        /// Its end is cut off, including the end-of-text token; it is dropped if nothing of the completion is left.
        Right = "right",
        /// The beginning of its prompt is cut off, except a prefix token; for a pair, the same tokens on both sides. It
        /// is dropped if that is not enough.
        Left = "left",
        /// It is dropped.
        Drop = "drop",
    }
}

/// Limits of the whole length of rows; those outside are dropped before anything is truncated. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Filter {
    /// The fewest tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<usize>,
    /// The most tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// The fewest characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_chars: Option<usize>,
    /// The most characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_chars: Option<usize>,
}

impl Filter {
    /// Whether there is no limit.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// The first limit that a text of a row violates, as its key with its value: `max_tokens = 512`.
    pub fn violated(&self, tokens: usize, chars: usize) -> Option<String> {
        let limits = [
            ("min_tokens", self.min_tokens, tokens, true),
            ("max_tokens", self.max_tokens, tokens, false),
            ("min_chars", self.min_chars, chars, true),
            ("max_chars", self.max_chars, chars, false),
        ];
        limits.into_iter().find_map(|(key, limit, found, is_least)| {
            let limit = limit?;
            let outside = if is_least { found < limit } else { found > limit };
            outside.then(|| format!("{key} = {limit}"))
        })
    }
}
