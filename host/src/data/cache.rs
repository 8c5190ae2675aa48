//! Files of tokens: verified before use, written completely or not at all, read through a memory map.
//!
//! | bytes | content (little-endian) |
//! |---|---|
//! | 0..16 | magic and layout version |
//! | 16..48 | key: sha256 of what the tokens were made from |
//! | 48..80 | sha256 of everything after the header |
//! | 80..88, 88..96 | number of documents D, number of tokens N |
//! | 96.. | D times u64: where each document ends, in tokens; then N times u32: the tokens |

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::files;

/// Prefix of an unfinished file.
const TEMPORARY: &str = ".tokens-";
const MAGIC: &[u8; 16] = b"telos tokens v1\n";
const HEADER: usize = 96;

/// A verified file of tokens in memory.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    documents: usize,
}

impl Mapped {
    /// Where each document ends, in tokens.
    pub fn ends(&self) -> &[u64] {
        bytemuck::cast_slice(self.map.get(HEADER..self.tokens_at()).unwrap_or_default())
    }

    /// All tokens.
    pub fn tokens(&self) -> &[u32] {
        bytemuck::cast_slice(self.map.get(self.tokens_at()..).unwrap_or_default())
    }

    fn tokens_at(&self) -> usize {
        HEADER + 8 * self.documents
    }
}

/// Opens the file if it exists, is complete, was made for `key` and is undamaged. Otherwise returns `None`, and the
/// caller computes the tokens again.
pub fn open(path: &Path, key: &[u8; 32]) -> Option<Mapped> {
    if cfg!(target_endian = "big") {
        return None;
    }
    let file = files::open(path).ok()?;
    // SAFETY: the mapped bytes must not change while the map lives. The file belongs to the cache, whose only
    // writer is `write` below: it fills a temporary file, makes it read-only and renames it. So a named file is
    // never written to again, and a replaced file stays valid for processes that have it mapped. The hash below is
    // computed from the mapping itself. If a user makes the file writable and truncates it by hand, this process
    // ends (SIGBUS); if a user writes into it, the run reads that.
    let map = unsafe { Mmap::map(&file) }.ok()?;
    let number = |at: usize| -> Option<usize> {
        let bytes = map.get(at..at + 8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let (documents, tokens) = (number(80)?, number(88)?);
    let body = documents.checked_mul(8)?.checked_add(tokens.checked_mul(4)?)?;
    let whole = map.len() == HEADER.checked_add(body)?
        && map.get(..16)? == MAGIC
        && map.get(16..48)? == key
        && map.get(48..80)? == Sha256::digest(map.get(HEADER..)?).as_slice();
    if !whole {
        return None;
    }
    let mapped = Mapped { map, documents };
    let last = mapped.ends().last().copied().unwrap_or_default();
    (mapped.ends().is_sorted() && last == mapped.tokens().len() as u64).then_some(mapped)
}

/// Writes the file under a temporary name in the same folder first, then renames it, so that readers never see half
/// of it.
pub fn write(path: &Path, key: &[u8; 32], ends: &[u64], tokens: &[u32]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let (ends_bytes, tokens_bytes): (&[u8], &[u8]) = (bytemuck::cast_slice(ends), bytemuck::cast_slice(tokens));
    let body = Sha256::new().chain_update(ends_bytes).chain_update(tokens_bytes).finalize();
    remove_abandoned(folder);
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        // Like every other file: the user's umask decides which users may read it.
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    for bytes in [MAGIC, key.as_slice(), body.as_slice()] {
        file.write_all(bytes)?;
    }
    file.write_all(&(ends.len() as u64).to_le_bytes())?;
    file.write_all(&(tokens.len() as u64).to_le_bytes())?;
    file.write_all(ends_bytes)?;
    file.write_all(tokens_bytes)?;
    // A file that a run has mapped must not be written to. Replacing the file leaves the mapped one unchanged.
    let mut readable = file.as_file().metadata()?.permissions();
    readable.set_readonly(true);
    file.as_file().set_permissions(readable)?;
    file.persist(path)?;
    Ok(())
}

/// Removes files left in the folder by processes that were killed while writing. Only files untouched for a day are
/// removed, since another machine may be writing there too. Files that cannot be removed stay.
fn remove_abandoned(folder: &Path) {
    let is_old = |entry: &fs::DirEntry| {
        let age = entry.metadata().ok().and_then(|meta| meta.modified().ok()?.elapsed().ok());
        age.is_some_and(|age| age > Duration::from_secs(24 * 3600))
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) && is_old(&entry) {
            _ = fs::remove_file(entry.path());
        }
    }
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a file that is rewritten in place: a run that has it mapped would read other tokens, or crash.
    #[test]
    fn a_mapped_file_is_replaced_and_never_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tokens");
        let (first, second) = ([1; 32], [2; 32]);
        write(&path, &first, &[2, 4], &[7, 8, 9, 10]).unwrap();
        let mapped = open(&path, &first).unwrap();
        write(&path, &second, &[1], &[5]).unwrap();
        assert_eq!((mapped.ends(), mapped.tokens()), (&[2, 4][..], &[7, 8, 9, 10][..]));
        assert!(open(&path, &first).is_none());
        assert_eq!(open(&path, &second).unwrap().tokens(), [5]);
        assert!(fs::metadata(&path).unwrap().permissions().readonly());
    }
}
