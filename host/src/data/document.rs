//! A document: the unit of running text.

/// A text to be read separately: attention never crosses its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The text.
    pub text: String,
    /// Whether the text ends here, so that the end-of-text token follows. False where a split cut it.
    pub ends: bool,
}
