//! Files of tokens: verified before use, written whole or not at all, read by mapping them into memory.
//!
//! | bytes | content (little-endian) |
//! |---|---|
//! | 0..16 | magic and layout version |
//! | 16..48 | key: sha256 of what the tokens were made from |
//! | 48..80 | sha256 of everything after the header |
//! | 80..88, 88..96 | number of documents D, number of tokens N |
//! | 96.. | D times u64: where each document ends, in tokens; then N times u32: the tokens |

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use memmap2::Mmap;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use sha2::{Digest, Sha256};

/// Prefix of a file that is not finished; the number of the process that writes it follows.
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

/// Opens the file if it is there, complete, made for `key` and undamaged. Anything else is `None`: the caller makes the
/// tokens anew.
pub fn open(path: &Path, key: &[u8; 32]) -> Option<Mapped> {
    if cfg!(target_endian = "big") {
        return None;
    }
    let file = File::open(path).ok()?;
    // SAFETY: the mapped bytes must not change while the map lives. The file belongs to the cache, whose only writer is
    // `write` below: it fills a temporary file and renames it, so a named file is never written to again, and a
    // replaced one lives on for whoever has it mapped. A person who truncates it by hand ends this process (SIGBUS).
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

/// Writes the file: to a temporary name in the same folder first, then renamed, so that no reader meets half of it.
pub fn write(path: &Path, key: &[u8; 32], ends: &[u64], tokens: &[u32]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let (ends_bytes, tokens_bytes): (&[u8], &[u8]) = (bytemuck::cast_slice(ends), bytemuck::cast_slice(tokens));
    let body = Sha256::new().chain_update(ends_bytes).chain_update(tokens_bytes).finalize();
    remove_abandoned(folder)?;
    let prefix = format!("{TEMPORARY}{}-", std::process::id());
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        // As every other file: the user's mask decides who else may read it.
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    for bytes in [MAGIC, key.as_slice(), body.as_slice()] {
        file.write_all(bytes)?;
    }
    file.write_all(&(ends.len() as u64).to_le_bytes())?;
    file.write_all(&(tokens.len() as u64).to_le_bytes())?;
    file.write_all(ends_bytes)?;
    file.write_all(tokens_bytes)?;
    file.persist(path)?;
    Ok(())
}

/// Removes what processes left in the folder that were killed while they wrote.
fn remove_abandoned(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(TEMPORARY).and_then(|rest| rest.split('-').next()?.parse().ok());
        if process.and_then(Pid::from_raw).is_some_and(|process| test_kill_process(process) == Err(Errno::SRCH)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
