//! Printing that survives a closed pipe: once the reader has closed it, output is discarded and the command
//! continues; one that only prints what it generates can stop instead ([`stream`]). Standard output is reserved for telos: what a
//! plugin prints goes to standard error.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use serde::Serialize;

use crate::error::{Error, Result};

/// Standard output, once [`keep_stdout`] has saved it.
static KEPT: OnceLock<File> = OnceLock::new();

/// Reserves standard output for [`out`]: from here on, what plugins print goes to standard error. Call it before a plugin is
/// loaded. Does nothing in a process without standard output or error.
pub fn keep_stdout() {
    let Ok(kept) = io::stdout().as_fd().try_clone_to_owned() else { return };
    if rustix::stdio::dup2_stdout(io::stderr()).is_ok() {
        _ = KEPT.set(File::from(kept));
    }
}

/// Whether standard output is a terminal.
pub fn is_terminal() -> bool {
    KEPT.get().map_or_else(|| io::stdout().is_terminal(), File::is_terminal)
}

/// Writes `text` to standard output.
pub fn out(text: &str) -> Result<()> {
    stream(text).map(drop)
}

/// As [`out`]; breaks if the reader has closed the pipe.
pub fn stream(text: &str) -> Result<ControlFlow<()>> {
    let written = match KEPT.get() {
        Some(mut kept) => kept.write_all(text.as_bytes()),
        None => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        }
    };
    match written {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(cause) => Err(Error::run("cannot write to standard output").with_cause(cause)),
    }
}

/// Writes `text` to standard error. A failure there cannot be reported.
pub fn err(text: &str) {
    _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Prints a command's result: as text, or as one line of JSON.
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
