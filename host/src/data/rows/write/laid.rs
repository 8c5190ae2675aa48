//! A row as text, and what is supervised of it.

use std::ops::Range;

/// A row as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Laid {
    /// All of it.
    pub text: String,
    /// What is learned, in code points, ascending; an empty stretch at the end stands for an empty completion.
    pub supervised: Vec<Range<usize>>,
    /// Answers that are not learned, because the template hides where they stand.
    pub unplaced: usize,
    /// Whether the template's own marks say what is learned: exactly that is, as in transformers, and nothing is added.
    pub is_exact: bool,
    /// Whether the text ends with an answer: then what the template writes after the last mark stays in it, unlearned.
    pub keeps_ending: bool,
    /// Whether there are answers, and every one of them says that it is not learned.
    pub is_unlearned: bool,
}
