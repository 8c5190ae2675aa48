//! Where data comes from: the files that were read.

use std::io;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::cache::hex;
use super::error::{DataError, Result};
use crate::files;

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

impl Source {
    /// Reads a file once, for its hash.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of_file(path: PathBuf) -> Result<Source> {
        let mut file = files::open(&path).map_err(DataError::io("read", &path))?;
        let mut hash = Sha256::new();
        let bytes = io::copy(&mut file, &mut hash).map_err(DataError::io("read", &path))?;
        Ok(Source { path, bytes, sha256: hex(&hash.finalize()) })
    }
}
