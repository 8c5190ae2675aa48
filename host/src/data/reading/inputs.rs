//! The files of a model's folder besides its weights. All are read here, and each file read is recorded for the
//! receipt. So a file that affects what is learned cannot be missing from the receipt. A GGUF file is read as a folder: its files
//! are made from its metadata.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::foreign;
use crate::data::cache::hex;
use crate::data::error::{DataError, Result};
use crate::data::gguf::{self, Gguf};
use crate::data::source::Source;
use crate::files;

/// Reads the files of one folder.
#[derive(Debug)]
pub struct Inputs {
    folder: PathBuf,
    /// The files that a GGUF file stands for; `None` for a folder.
    made: Option<Vec<(&'static str, Vec<u8>)>>,
    read: Vec<Source>,
}

impl Inputs {
    /// For a folder, of which nothing is read yet; for a GGUF file, or a folder with only such a file, whose header is read.
    ///
    /// # Errors
    /// A GGUF file that cannot be read; several of them.
    pub fn of(folder: &Path) -> Result<Inputs> {
        let (folder, made) = match gguf::at(folder)? {
            Some(file) => {
                let (header, _) = Gguf::open(&file)?;
                let made = gguf::folder_files(&header)?;
                (file, Some(made))
            }
            None => (folder.to_owned(), None),
        };
        Ok(Inputs { folder, made, read: Vec::new() })
    }

    /// The path of the file `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether such a file exists. A broken link counts as existing, and so does a file that the system cannot
    /// inspect: reading it then reports the error.
    pub fn has(&self, name: &str) -> bool {
        match &self.made {
            Some(made) => made.iter().any(|(own, _)| *own == name),
            None => !files::is_missing(&self.path(name)),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read; a Git LFS pointer; JSON that begins with a byte order mark.
    pub fn read(&mut self, name: &str) -> Result<Vec<u8>> {
        let bytes = match &self.made {
            Some(made) => {
                let own = made.iter().find(|(own, _)| *own == name);
                own.map(|(_, bytes)| bytes.clone()).ok_or_else(|| DataError::Missing(self.path(name)))?
            }
            None => foreign::read(&self.path(name))?,
        };
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
