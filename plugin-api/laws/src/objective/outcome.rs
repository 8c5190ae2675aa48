//! The result of a law: it holds, or a fault shows that it is broken.

use super::windows::describe;
use crate::Agreement;
use plugin_api::{Error, Result, batch::Batch, tape::CheckError};

/// How a law was broken.
pub(super) struct Fault {
    pub(super) text: String,
    pub(super) agreement: Option<Agreement>,
    /// The batch that shows it, in words, if it is not the window as drawn.
    pub(super) at: Option<String>,
}

impl Fault {
    /// With the batch that shows it.
    pub(super) fn shown_by(self, batch: &Batch<'_>) -> Self {
        Self { at: Some(describe(batch)), ..self }
    }

    /// A fault with its numbers.
    pub(super) fn measured(text: String, agreement: Agreement) -> Self {
        Self { text, agreement: Some(agreement), at: None }
    }

    /// The same fault with its context before the text.
    pub(super) fn within(self, what: &str) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }
}

/// A law that holds: a note, and the greatest error if the law compares numbers.
#[derive(Default)]
pub(super) struct Held {
    pub(super) note: String,
    pub(super) agreement: Option<Agreement>,
}

impl Held {
    pub(super) fn note(text: impl Into<String>) -> Self {
        Self { note: text.into(), agreement: None }
    }

    pub(super) fn measured(worst: Agreement) -> Self {
        Self { note: String::new(), agreement: Some(worst) }
    }
}

pub(super) type Outcome = Result<Held, Fault>;

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Fault { text, agreement: None, at: None }
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::from(e.to_string())
    }
}

impl From<CheckError> for Fault {
    fn from(e: CheckError) -> Self {
        Fault::from(e.to_string())
    }
}

pub(super) fn fault<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::from(why.into()))
}

pub(super) fn holds() -> Outcome {
    Ok(Held::default())
}
