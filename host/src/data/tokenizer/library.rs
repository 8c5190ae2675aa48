//! Calls of the `tokenizers` library on untrusted files. The library panics on some contents (a damaged character
//! map, a pattern that exhausts the regex engine's retries, a post-processor that names missing tokens). Each call
//! goes through here, and a panic becomes an error with the file's name.

use crate::data::error::{DataError, Result};
use crate::data::reading::guard;

/// Runs `call` of the library for the tokenizer `name`; `fails` describes the failure, such as "it cannot encode".
///
/// # Errors
/// The library's error, or its panic.
pub(crate) fn run<T>(name: &str, fails: &str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let error = |what: String, source| DataError::Tokenizer { name: name.to_owned(), what, source };
    match guard::caught(call) {
        Ok(result) => result.map_err(|source| error(fails.to_owned(), Some(source))),
        Err(panic) => Err(error(format!("{fails}: the tokenizers library stopped with \"{panic}\""), None)),
    }
}
