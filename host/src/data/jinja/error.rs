//! Why a template cannot be read or rendered.

use std::fmt;

/// Why a template cannot be read or rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub what: String,
    /// The template's line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {} of the template)", self.what, self.line)
    }
}

impl std::error::Error for Error {}

/// The most characters of an error's message; a template may raise an error with any text.
const MESSAGE: usize = 1000;

impl Error {
    pub fn new(what: String, line: usize) -> Error {
        let what = match what.char_indices().nth(MESSAGE) {
            Some((end, _)) => format!("{} ...", &what[..end]),
            None => what,
        };
        Error { what, line }
    }
}

/// An error without its line, which the renderer adds.
pub type Fault = String;
/// The result of an evaluation.
pub type Evaluated<T> = Result<T, Fault>;
