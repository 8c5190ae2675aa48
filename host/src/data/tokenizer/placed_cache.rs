//! Tokens of rows and their places, kept on disk from one run to the next.
//!
//! A file belongs to the texts that are tokenised together and to the tokenizer, whatever the experiment makes of them. In
//! it every text is a document of [`cache`](crate::data::cache), with two numbers for each token: its id, and how far its place
//! begins after that of the token before and how long it is, 16 bits each.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::Tokenizer;
use super::encode::Placed;
use crate::data::cache::{self, Mapped, hex};
use crate::data::error::Result;

/// Part of every key: increase it whenever tokens or places of the same text would come out differently.
const VERSION: &[u8] = b"placed 1";
/// Fewer bytes of text are tokenised as fast as a file is found.
const LEAST_BYTES: usize = 1 << 18;

impl Tokenizer {
    /// As [`Tokenizer::encode_placed`], from the folder `cache` if these texts were tokenised before, and otherwise into it. A file
    /// that fails verification is written again; a folder that cannot be written is ignored.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_placed`].
    pub fn encode_placed_by(&self, cache: Option<&Path>, texts: Vec<&str>) -> Result<Vec<Placed>> {
        let Some(folder) = cache.filter(|_| texts.iter().map(|text| text.len()).sum::<usize>() >= LEAST_BYTES) else {
            return self.encode_placed(texts);
        };
        let key = key(self, &texts);
        let file = folder.join(format!("{}.tokens", hex(&key)));
        if let Some(placed) = cache::open(&file, &key).and_then(|mapped| unpacked(&mapped, texts.len())) {
            return Ok(placed);
        }
        let placed = self.encode_placed(texts)?;
        if let Some((ends, tokens)) = packed(&placed) {
            // A full or read-only disk only costs time.
            _ = cache::write(&file, &key, &ends, &tokens);
        }
        Ok(placed)
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
        assert_eq!(bytes.encode_placed_by(cache, vec!["short"]).unwrap(), bytes.encode_placed(vec!["short"]).unwrap());
        assert!(files().is_empty());
        for texts in &texts {
            let expected = bytes.encode_placed(texts.clone()).unwrap();
            for _ in 0..2 {
                assert_eq!(bytes.encode_placed_by(cache, texts.clone()).unwrap(), expected);
            }
        }
        assert_eq!(files().len(), 2);
        let document = crate::data::Document { text: long.clone(), ends: true };
        let trained = Tokenizer::train(&[document], 300).unwrap();
        let of_trained = trained.encode_placed_by(cache, texts[0].clone()).unwrap();
        assert_eq!(of_trained, trained.encode_placed(texts[0].clone()).unwrap());
        assert_eq!(files().len(), 3);
        for file in files() {
            let mut damaged = fs::read(&file).unwrap();
            *damaged.last_mut().unwrap() ^= 1;
            fs::remove_file(&file).unwrap();
            fs::write(&file, damaged).unwrap();
        }
        assert_eq!(
            bytes.encode_placed_by(cache, texts[1].clone()).unwrap(),
            bytes.encode_placed(texts[1].clone()).unwrap()
        );
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
