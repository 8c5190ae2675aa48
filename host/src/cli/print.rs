//! Printing that survives a closed pipe: when the reader has gone there is nothing more to say, and the work goes on.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::error::{Error, Result};

/// Writes `text` to standard output.
pub fn out(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::run("cannot write to standard output").with_cause(cause))
        }
        _ => Ok(()),
    }
}

/// Writes `text` to standard error. A failure there has nowhere to be told.
pub fn err(text: &str) {
    _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Prints a command's result: for people, or as one line of JSON.
pub fn result<T: Display + Serialize>(value: &T, json: bool) -> Result<()> {
    if json {
        return self::json(value);
    }
    let mut text = value.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    out(&text)
}

/// Prints a value as one line of JSON.
pub fn json<T: Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|cause| Error::run("cannot write the result as JSON").with_cause(cause))?;
    out(&(text + "\n"))
}
