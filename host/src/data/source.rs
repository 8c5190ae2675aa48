//! Where data comes from: the files that were read, and places in them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A file that data came from, for the receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file, or a name such as "synthetic".
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// sha256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// The place of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or a name such as "synthetic".
    pub file: Arc<str>,
    /// Its line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
