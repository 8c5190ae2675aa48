//! How a job fails: with an error that the child reports, or because the child itself fails.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// A child that did not end normally.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What it was doing.
    pub at: String,
    /// How it ended, and its last output.
    pub text: String,
    /// Whether the process ended by itself. If not, it took too long or printed too much, and another one would
    /// too.
    pub exited: bool,
}

/// An error that is passed to the parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    request: bool,
    message: String,
    details: Vec<String>,
    hint: Option<String>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal {
            request: error.kind() == Kind::Request,
            message: error.message().to_owned(),
            details: error.details().to_vec(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = if refusal.request { Kind::Request } else { Kind::Run };
        let error = Error::new(kind, refusal.message).with_details(refusal.details);
        match refusal.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}
