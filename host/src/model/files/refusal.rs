//! The refusal of a file's tensors, shared by whole models and adapters.

use crate::error::Error;

/// Maximum number of mistakes listed.
const LISTED: usize = 20;

/// Returns a request error with the first mistakes and the number of the others.
pub(in crate::model) fn refusal(what: String, mistakes: Vec<String>) -> Error {
    let rest = mistakes.len().saturating_sub(LISTED);
    let mut lines: Vec<String> = mistakes.into_iter().take(LISTED).collect();
    if rest > 0 {
        lines.push(format!("... and {rest} more"));
    }
    Error::request(what).with_details(lines)
}
