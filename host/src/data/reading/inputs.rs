//! The files of a model's folder besides its weights. All are read here, and each file read is recorded for the
//! receipt. So a file that affects what is learned cannot be missing from the receipt.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::foreign;
use crate::data::cache::hex;
use crate::data::error::Result;
use crate::data::source::Source;
use crate::files;

/// Reads the files of one folder.
#[derive(Debug)]
pub struct Inputs {
    folder: PathBuf,
    read: Vec<Source>,
}

impl Inputs {
    /// For `folder`; nothing is read yet.
    pub fn of(folder: &Path) -> Inputs {
        Inputs { folder: folder.to_owned(), read: Vec::new() }
    }

    /// The path of the file `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether such a file exists. A broken link counts as existing, and so does a file that the system cannot
    /// inspect: reading it then reports the error.
    pub fn has(&self, name: &str) -> bool {
        !files::is_missing(&self.path(name))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read; a Git LFS pointer; JSON that begins with a byte order mark.
    pub fn read(&mut self, name: &str) -> Result<Vec<u8>> {
        let bytes = foreign::read(&self.path(name))?;
        let sha256 = hex(&Sha256::digest(&bytes));
        self.read.push(Source { path: name.into(), bytes: bytes.len() as u64, sha256 });
        Ok(bytes)
    }

    /// The files read, sorted by name; paths are relative to the folder.
    pub fn noted(mut self) -> Vec<Source> {
        self.read.sort_by(|a, b| a.path.cmp(&b.path));
        self.read
    }
}
