//! Why a result is refused: the type and helpers that all checks use.

/// Why a result is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// What is wrong, what was expected, and how to fix it. Names the array, term or metric, not the plugin.
    pub text: String,
    /// The sequence of the batch that it concerns, counted from 0; `None` if it concerns no single one.
    pub sequence: Option<usize>,
}

impl Fault {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Fault { text: text.into(), sequence: None }
    }

    pub(super) fn at(text: impl Into<String>, sequence: Option<usize>) -> Self {
        Fault { text: text.into(), sequence }
    }
}

impl From<crate::Error> for Fault {
    fn from(error: crate::Error) -> Self {
        Fault::new(error.message)
    }
}

pub(super) fn fault<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::new(text))
}

/// The first name that occurs twice in `names`.
pub(super) fn twice<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

/// The sequence that holds token `n`, by `offsets`.
pub(super) fn sequence_of(offsets: &[usize], n: usize) -> Option<usize> {
    offsets.windows(2).position(|ends| (ends[0]..ends[1]).contains(&n))
}

/// A token's place in words: in the batch and in its sequence.
pub fn place(offsets: &[usize], n: usize) -> String {
    match sequence_of(offsets, n) {
        Some(s) => format!("token {n} (token {} of sequence {s})", n - offsets[s]),
        None => format!("token {n}"),
    }
}
