//! Tokens of rows and their places, kept on disk from one run to the next.
//!
//! A file belongs to the texts that are tokenised together and to the tokenizer, whatever the experiment makes of them. In
//! it every text is a document of [`cache`](crate::data::cache), with two numbers for each token: its id, and how far its place
//! begins after that of the token before and how long it is, 16 bits each.
//!
//! The cache must not take the room that a run needs: nothing is written to a disk that is nearly full, and files that no run has
//! read for a month are removed.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::Tokenizer;
use super::encode::Placed;
use crate::data::cache::{self, Mapped, hex};
use crate::data::error::Result;

/// Part of every key: increase it whenever tokens or places of the same text would come out differently.
const VERSION: &[u8] = b"placed 1";
/// Fewer bytes of text are tokenised as fast as a file is found.
const LEAST_BYTES: usize = 1 << 18;
/// Nothing is written if less than this would be left on the disk.
const LEAST_FREE: u64 = 4 << 30;
/// Files that were not read for so long are removed.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);
/// Ending of the files.
const ENDING: &str = "placed";

impl Tokenizer {
    /// As [`Tokenizer::encode_placed`], from the folder `cache` if these texts were tokenised before, and otherwise into it. A file
    /// that fails verification is written again; a folder that cannot be written, or whose disk is nearly full, is ignored.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_placed`].
    pub fn encode_placed_by(&self, cache: Option<&Path>, texts: Vec<&str>) -> Result<Vec<Placed>> {
        self.placed_with(cache, texts, LEAST_FREE)
    }

    fn placed_with(&self, cache: Option<&Path>, texts: Vec<&str>, least_free: u64) -> Result<Vec<Placed>> {
        let Some(folder) = cache.filter(|_| texts.iter().map(|text| text.len()).sum::<usize>() >= LEAST_BYTES) else {
            return self.encode_placed(texts);
        };
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| remove_unused(folder, SystemTime::now()));
        let key = key(self, &texts);
        let file = folder.join(format!("{}.{ENDING}", hex(&key)));
        if let Some(placed) = cache::open(&file, &key).and_then(|mapped| unpacked(&mapped, texts.len())) {
            // The time of the last use; a file of another user keeps its own.
            _ = File::open(&file).and_then(|file| file.set_modified(SystemTime::now()));
            return Ok(placed);
        }
        let placed = self.encode_placed(texts)?;
        let fits = |tokens: &[u32]| has_room(folder, least_free.saturating_add(4 * tokens.len() as u64));
        if let Some((ends, tokens)) = packed(&placed).filter(|(_, tokens)| fits(tokens)) {
            // Tokens that are not kept only cost time.
            _ = cache::write(&file, &key, &ends, &tokens);
        }
        Ok(placed)
    }
}

/// Whether the disk of `folder`, which may not exist yet, has room for as many bytes.
fn has_room(folder: &Path, bytes: u64) -> bool {
    let known = folder.ancestors().find_map(|folder| {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        rustix::fs::statvfs(folder).ok()
    });
    known.is_some_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes)
}

/// Removes the files that were not read in the month before `now`.
fn remove_unused(folder: &Path, now: SystemTime) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let used = entry.metadata().and_then(|file| file.modified());
        let age = used.ok().and_then(|used| now.duration_since(used).ok());
        let is_own = entry.path().extension().is_some_and(|ending| ending == ENDING);
        if is_own && age.is_some_and(|age| age > UNUSED) {
            _ = fs::remove_file(entry.path());
        }
    }
}

/// sha256 of everything that tokens and places depend on.
fn key(tokenizer: &Tokenizer, texts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(VERSION);
    hash.update(tokenizer.hash());
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}

/// Where each text ends, and two numbers for each token; `None` if a place does not fit into 16 bits.
fn packed(texts: &[Placed]) -> Option<(Vec<u64>, Vec<u32>)> {
    let (mut ends, mut tokens) = (Vec::with_capacity(texts.len()), Vec::new());
    for text in texts {
        let mut last = 0;
        for (id, (begin, end)) in text.ids.iter().zip(&text.offsets) {
            let further = u16::try_from(begin.checked_sub(last)?).ok()?;
            let length = u16::try_from(end.checked_sub(*begin)?).ok()?;
            tokens.extend([*id, u32::from(further) << 16 | u32::from(length)]);
            last = *begin;
        }
        ends.push(tokens.len() as u64);
    }
    Some((ends, tokens))
}

/// The reverse of [`packed`]; `None` if the file does not hold so many texts.
fn unpacked(mapped: &Mapped, texts: usize) -> Option<Vec<Placed>> {
    let mut begin = 0;
    let text = |end: &u64| {
        let end = usize::try_from(*end).ok()?;
        let own = mapped.tokens().get(begin..end)?;
        begin = end;
        let mut placed = Placed { ids: Vec::with_capacity(own.len() / 2), offsets: Vec::with_capacity(own.len() / 2) };
        let mut at = 0;
        for token in own.chunks_exact(2) {
            at += (token[1] >> 16) as usize;
            placed.ids.push(token[0]);
            placed.offsets.push((at, at + (token[1] & 0xffff) as usize));
        }
        Some(placed)
    };
    (mapped.ends().len() == texts).then(|| mapped.ends().iter().map(text).collect())?
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Catches tokens that come back changed, tokens of other texts or of another tokenizer, a damaged file that is believed, and a
    /// small text that leaves a file.
    #[test]
    fn tokens_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, cache) = (Tokenizer::bytes().unwrap(), Some(folder.path()));
        let long = "ä — a word. ".repeat(LEAST_BYTES / 12);
        let texts = [vec!["", long.as_str(), "end<|endoftext|>"], vec!["", long.as_str(), "end<|endoftext|>."]];
        let files = || {
            let mut all: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            all.sort();
            all
        };
        assert_eq!(bytes.placed_with(cache, vec!["short"], 0).unwrap(), bytes.encode_placed(vec!["short"]).unwrap());
        assert!(files().is_empty());
        for texts in &texts {
            let expected = bytes.encode_placed(texts.clone()).unwrap();
            for _ in 0..2 {
                assert_eq!(bytes.placed_with(cache, texts.clone(), 0).unwrap(), expected);
            }
        }
        assert_eq!(files().len(), 2);
        let document = crate::data::Document { text: long.clone(), ends: true };
        let trained = Tokenizer::train(&[document], 300).unwrap();
        let of_trained = trained.placed_with(cache, texts[0].clone(), 0).unwrap();
        assert_eq!(of_trained, trained.encode_placed(texts[0].clone()).unwrap());
        assert_eq!(files().len(), 3);
        for file in files() {
            let mut damaged = fs::read(&file).unwrap();
            *damaged.last_mut().unwrap() ^= 1;
            fs::remove_file(&file).unwrap();
            fs::write(&file, damaged).unwrap();
        }
        assert_eq!(
            bytes.placed_with(cache, texts[1].clone(), 0).unwrap(),
            bytes.encode_placed(texts[1].clone()).unwrap()
        );
    }

    /// Catches a cache that only grows, one that removes what is in use or is not its own, and one that fills the disk.
    #[test]
    fn the_cache_leaves_room() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.placed", "b.tokens"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let left = || fs::read_dir(folder.path()).unwrap().count();
        remove_unused(folder.path(), SystemTime::now() + UNUSED / 2);
        assert_eq!(left(), 2);
        remove_unused(folder.path(), SystemTime::now() + 2 * UNUSED);
        assert_eq!(left(), 1);
        assert!(!has_room(&folder.path().join("a/b"), u64::MAX / 2));
    }

    /// Catches a place that is kept cut off.
    #[test]
    fn places_that_do_not_fit_are_not_kept() {
        let of = |offsets: &[(usize, usize)]| Placed { ids: vec![1; offsets.len()], offsets: offsets.to_vec() };
        assert!(packed(&[of(&[(0, 1), (65_536, 65_537)])]).is_none());
        assert!(packed(&[of(&[(0, 65_536)])]).is_none());
        assert!(packed(&[of(&[(3, 4), (2, 3)])]).is_none());
        assert_eq!(packed(&[of(&[(0, 65_535), (65_535, 65_536)])]).unwrap().0, [4]);
    }
}
