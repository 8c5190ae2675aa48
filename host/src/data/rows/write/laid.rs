//! A row as text, and which of it is supervised.

use std::ops::Range;

/// A row as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Laid {
    /// All of it.
    pub text: String,
    /// The supervised spans, in code points, ascending; an empty span at the end stands for an empty completion.
    pub supervised: Vec<Range<usize>>,
    /// Number of answers that are not learned, because their place in the template's text cannot be found.
    pub unplaced: usize,
    /// Whether the template's own marks decide what is learned: exactly the marked text, as in transformers, and
    /// nothing is added.
    pub is_exact: bool,
    /// Whether the text ends with an answer. If so, what the template writes after the last mark stays in the text,
    /// unsupervised.
    pub keeps_ending: bool,
    /// Whether there are answers and all of them are flagged as not learned.
    pub is_unlearned: bool,
}
