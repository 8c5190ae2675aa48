//! Where data comes from: the files that were read.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use plugin_api_load::Identity;
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

/// A file that was hashed and is not read yet.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// The file.
    pub source: Source,
    identity: Identity,
}

fn identity(file: &File, path: &Path) -> Result<Identity> {
    Ok(Identity::from(&file.metadata().map_err(DataError::io("read", path))?))
}

impl Hashed {
    /// Reads a file once, for its hash.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of_file(path: PathBuf) -> Result<Hashed> {
        let mut file = files::open(&path).map_err(DataError::io("read", &path))?;
        let identity = identity(&file, &path)?;
        let mut hash = Sha256::new();
        let bytes = io::copy(&mut file, &mut hash).map_err(DataError::io("read", &path))?;
        Ok(Hashed { source: Source { path, bytes, sha256: hex(&hash.finalize()) }, identity })
    }

    /// Reads the file again, for its content: `read` gets it open.
    ///
    /// # Errors
    /// Those of `read`; a file that was changed or replaced since it was hashed, so that the hash is not that of the content.
    pub fn read<T>(&self, read: impl FnOnce(File) -> Result<T>) -> Result<T> {
        let path = &self.source.path;
        let file = files::open(path).map_err(DataError::io("read", path))?;
        let same = file.try_clone().map_err(DataError::io("read", path))?;
        self.check(&same)?;
        let content = read(file);
        // A file that is changed while it is read can also look damaged.
        self.check(&same)?;
        content
    }

    fn check(&self, file: &File) -> Result<()> {
        if identity(file, &self.source.path)? == self.identity {
            return Ok(());
        }
        // Some network file systems change these numbers without a write, and a file may be linked or touched: the hash decides.
        if Hashed::of_file(self.source.path.clone())?.source == self.source {
            return Ok(());
        }
        Err(DataError::Unusable {
            path: self.source.path.clone(),
            what: "was changed while it was read".into(),
            remedy: "start again when nothing writes to it any more".into(),
            source: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Catches rows that are not those of the hash: of a file that is replaced after it was hashed, or written to while it is read.
    #[test]
    fn a_file_that_changes_after_it_was_hashed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let text = |mut file: File| {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(DataError::io("read", &path))?;
            Ok(text)
        };
        let changed = |result: Result<String>| {
            let error = result.unwrap_err().to_string();
            assert!(error.ends_with("a.jsonl: was changed while it was read"), "{error}");
        };
        std::fs::write(&path, "one").unwrap();
        let hashed = Hashed::of_file(path.clone()).unwrap();
        assert_eq!(hashed.read(text).unwrap(), "one");
        let other = folder.path().join("b");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        changed(hashed.read(text));
        let hashed = Hashed::of_file(path.clone()).unwrap();
        std::fs::hard_link(&path, folder.path().join("c")).unwrap();
        File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(hashed.read(text).unwrap(), "two", "only its times have changed");
        changed(hashed.read(|file| {
            let mut appending = File::options().append(true).open(&path).unwrap();
            appending.write_all(b"\nthree").unwrap();
            text(file)
        }));
    }
}
