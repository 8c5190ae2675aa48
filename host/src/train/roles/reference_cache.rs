//! A file of numbers by block, which grows as blocks are computed. What was written before an interruption, a crash or a full
//! disk is read the next time.
//!
//! A record is the block's number, how many numbers it has (both 8 bytes, little-endian), the numbers as f64, and the sha256 of
//! all that. Reading stops at the first incomplete or damaged record; new records overwrite the file from there.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::files;

const SHA256: usize = 32;

/// Numbers by block, in memory and in a file.
pub struct BlockFile {
    path: PathBuf,
    known: BTreeMap<u64, Vec<f64>>,
    /// The file to append new blocks to; absent if it cannot be written, or if another process writes it.
    file: Option<File>,
    /// Why the file cannot be written, with its name; `None` once it was reported.
    failure: Option<io::Error>,
}

impl BlockFile {
    /// Reads the file at `path`, which may not exist yet; new blocks are appended to it. While another process appends to it,
    /// new blocks stay in memory.
    pub fn open(path: &Path) -> BlockFile {
        let (file, failure) = match append_to(path) {
            Ok(file) => (file, None),
            Err(error) => (None, Some(named(path, error))),
        };
        let (known, whole) = read(&files::read(path).unwrap_or_default());
        let mut blocks = BlockFile { path: path.to_owned(), known, file, failure };
        if let Some(file) = &mut blocks.file {
            let cut = file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::End(0)));
            if let Err(error) = cut {
                blocks.fail(error);
            }
        }
        blocks
    }

    /// Returns the numbers of a block.
    pub fn get(&self, block: u64) -> Option<&[f64]> {
        self.known.get(&block).map(Vec::as_slice)
    }

    /// Adds a block. It stays in memory even if it cannot be written.
    ///
    /// # Errors
    /// The reason why nothing can be written; returned once.
    pub fn add(&mut self, block: u64, numbers: Vec<f64>) -> io::Result<()> {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(&record(block, &numbers))
        {
            self.fail(error);
        }
        self.known.insert(block, numbers);
        self.failure.take().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: io::Error) {
        (self.file, self.failure) = (None, Some(named(&self.path, error)));
    }
}

/// Opens the file for writing by this process alone; `None` if another process has it open.
fn append_to(path: &Path) -> io::Result<Option<File>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Opening a pipe for writing would wait for a reader.
    files::open(path)
        .map(drop)
        .or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn record(block: u64, numbers: &[f64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + 8 * numbers.len() + SHA256);
    bytes.extend(block.to_le_bytes());
    bytes.extend((numbers.len() as u64).to_le_bytes());
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    let seal = Sha256::digest(&bytes);
    bytes.extend(seal);
    bytes
}

/// Returns the blocks of the complete records at the beginning of `bytes`, and the length of these records.
fn read(bytes: &[u8]) -> (BTreeMap<u64, Vec<f64>>, usize) {
    let (mut known, mut rest) = (BTreeMap::new(), bytes);
    while let Some((block, numbers, after)) = first_record(rest) {
        known.insert(block, numbers);
        rest = after;
    }
    (known, bytes.len() - rest.len())
}

/// Returns the first record and the bytes after it; `None` if it is incomplete or damaged.
fn first_record(bytes: &[u8]) -> Option<(u64, Vec<f64>, &[u8])> {
    let (block, rest) = bytes.split_first_chunk::<8>()?;
    let (count, _) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*count)).ok()?.checked_mul(8)?.checked_add(16)?;
    let (content, rest) = bytes.split_at_checked(length)?;
    let (seal, after) = rest.split_at_checked(SHA256)?;
    if Sha256::digest(content).as_slice() != seal {
        return None;
    }
    let numbers = content.get(16..)?.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
    Some((u64::from_le_bytes(*block), numbers.collect(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: [f64; 3] = [-0.1, f64::MIN_POSITIVE, -3.25];

    /// Opens the file once no other process has it open. A process that another test starts has it open too, from its fork to
    /// its exec.
    fn open_for_writing(path: &Path) -> BlockFile {
        (0..10_000)
            .find_map(|_| {
                let blocks = BlockFile::open(path);
                if blocks.file.is_none() {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                blocks.file.is_some().then_some(blocks)
            })
            .expect("the file is free after a while")
    }

    fn two_blocks(path: &Path) {
        let mut blocks = open_for_writing(path);
        blocks.add(4, FIRST.to_vec()).unwrap();
        blocks.add(0, vec![7.0]).unwrap();
        assert_eq!(blocks.get(0), Some([7.0].as_slice()));
    }

    /// Catches damaged numbers that are returned, intact ones before the damage that are lost, and new ones that are written
    /// after the damage and never found again.
    #[test]
    fn gotcha_22_41_numbers_come_back_bit_for_bit_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below").join("a.logps");
        two_blocks(&path);
        let bytes = fs::read(&path).unwrap();
        let second = bytes.len() - (16 + 8 + SHA256);
        // Truncated anywhere in the second record, or with any byte of it changed.
        for at in second..bytes.len() {
            for damaged in [bytes[..at].to_vec(), [&bytes[..at], &[bytes[at] ^ 1], &bytes[at + 1..]].concat()] {
                fs::write(&path, damaged).unwrap();
                let mut blocks = open_for_writing(&path);
                assert_eq!(blocks.get(4), Some(FIRST.as_slice()), "byte {at}");
                assert_eq!(blocks.get(0), None, "byte {at}");
                blocks.add(0, vec![7.0]).unwrap();
                drop(blocks);
                assert!(fs::read(&path).unwrap() == bytes, "byte {at}");
            }
        }
        assert!(first_record(&[0xff; 64]).is_none(), "a length beyond all memory");
    }

    /// Catches two processes that write into each other's records, and a path that cannot be written and stops a run.
    #[test]
    fn a_file_that_cannot_be_written_costs_only_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.logps");
        let mut first = open_for_writing(&path);
        first.add(1, vec![1.0]).unwrap();
        let mut second = BlockFile::open(&path);
        assert_eq!(second.get(1), Some([1.0].as_slice()));
        second.add(2, vec![2.0]).unwrap();
        assert_eq!(second.get(2), Some([2.0].as_slice()));
        first.add(3, vec![3.0]).unwrap();
        drop((first, second));
        let third = BlockFile::open(&path);
        assert_eq!([1, 2, 3].map(|block| third.get(block).is_some()), [true, false, true]);
        // A file where the folder should be.
        let mut nowhere = BlockFile::open(&path.join("b.logps"));
        assert!(nowhere.add(1, vec![1.0]).is_err());
        assert!(nowhere.add(2, vec![2.0]).is_ok(), "reported once");
        assert_eq!(nowhere.get(1), Some([1.0].as_slice()));
    }
}
