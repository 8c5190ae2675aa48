//! Documents as token ids: tokenised once, or read from a file of the cache.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::cache::{self, Mapped, hex};
use super::document::Document;
use super::error::{DataError, Result};
use super::tokenizer::Tokenizer;

/// Part of every cache key: increase it whenever tokens of the same text would come out differently.
const VERSION: u64 = 1;
/// Text of a byte tokenizer is encoded in parts of this many bytes, so that the library's tables stay small.
const PART_BYTES: usize = 1 << 17;
/// Places in a text are addressed by 32-bit numbers.
const MOST_TOKENS: usize = u32::MAX as usize;
/// About this much text is encoded at once, in parallel: the library uses a few hundred bytes per token while it
/// encodes.
const GROUP_BYTES: usize = 1 << 21;

/// The tokens of many documents. A document ends with exactly one end-of-text token, unless a split truncated it.
/// The token that inputs begin with (BOS) is not stored.
#[derive(Debug)]
pub struct TokenSet {
    store: Store,
    key: [u8; 32],
}

#[derive(Debug)]
enum Store {
    Memory { ends: Vec<u64>, tokens: Vec<u32> },
    Mapped(Mapped),
}

impl TokenSet {
    /// Tokenises `documents`, or opens what an earlier call wrote to the folder `cache` for the same text and
    /// tokenizer. A cache file that fails verification is written again; a cache that cannot be written is ignored.
    pub fn load(documents: &[Document], tokenizer: &Tokenizer, cache: Option<&Path>) -> Result<TokenSet> {
        let eos = tokenizer.eos().ok_or_else(|| DataError::NoEndOfText(tokenizer.name().into()))?;
        tokenizer.within_model(&[eos])?;
        let key = key(documents, tokenizer);
        let file = cache.map(|folder| folder.join(format!("{}.tokens", hex(&key))));
        if let Some(mapped) = file.as_deref().and_then(|file| cache::open(file, &key)) {
            return Ok(TokenSet { store: Store::Mapped(mapped), key });
        }
        let (ends, tokens) = tokenize(documents, tokenizer, eos)?;
        if tokens.len() >= MOST_TOKENS {
            return Err(DataError::Option(format!(
                "more than {MOST_TOKENS} tokens in one data set; train on it in parts"
            )));
        }
        if let Some(file) = &file {
            // A full or read-only disk only costs time: the tokens are in memory.
            let _ = cache::write(file, &key, &ends, &tokens);
            if let Some(mapped) = cache::open(file, &key) {
                return Ok(TokenSet { store: Store::Mapped(mapped), key });
            }
        }
        Ok(TokenSet { store: Store::Memory { ends, tokens }, key })
    }

    /// Identifies the text and the tokenizer that these tokens come from, in hexadecimal.
    pub fn key(&self) -> String {
        hex(&self.key)
    }

    /// The number of documents.
    pub fn documents(&self) -> usize {
        self.ends().len()
    }

    /// The number of tokens, including end-of-text tokens.
    pub fn tokens(&self) -> u64 {
        self.ids().len() as u64
    }

    /// The tokens of one document; empty if there is no such document.
    pub fn document(&self, index: usize) -> &[u32] {
        let (start, end) = self.bounds(index);
        self.ids().get(start..end).unwrap_or_default()
    }

    fn bounds(&self, index: usize) -> (usize, usize) {
        let end_of = |index: usize| self.ends().get(index).map_or(0, |&end| end as usize);
        (index.checked_sub(1).map_or(0, end_of), end_of(index))
    }

    fn ends(&self) -> &[u64] {
        match &self.store {
            Store::Memory { ends, .. } => ends,
            Store::Mapped(mapped) => mapped.ends(),
        }
    }

    fn ids(&self) -> &[u32] {
        match &self.store {
            Store::Memory { tokens, .. } => tokens,
            Store::Mapped(mapped) => mapped.tokens(),
        }
    }
}

/// sha256 of everything that the tokens depend on.
fn key(documents: &[Document], tokenizer: &Tokenizer) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(VERSION.to_le_bytes());
    hash.update(tokenizer.hash());
    hash.update(tokenizer.eos().unwrap_or(u32::MAX).to_le_bytes());
    for document in documents {
        hash.update([u8::from(document.ends)]);
        hash.update((document.text.len() as u64).to_le_bytes());
        hash.update(&document.text);
    }
    hash.finalize().into()
}

/// A part of the text to be encoded separately.
struct Piece<'a> {
    text: &'a str,
    /// Whether a document ends after it, and whether the end-of-text token belongs there.
    closes: Option<bool>,
}

fn tokenize(documents: &[Document], tokenizer: &Tokenizer, eos: u32) -> Result<(Vec<u64>, Vec<u32>)> {
    let mark = tokenizer.token(eos).unwrap_or_default();
    let parts: Vec<Piece> =
        documents.iter().flat_map(|document| parts(document, &mark, tokenizer.one_byte_each())).collect();
    let (mut ends, mut tokens) = (Vec::new(), Vec::new());
    for group in groups(&parts) {
        let encoded = tokenizer.encode_many(group.iter().map(|part| part.text).collect())?;
        for (part, ids) in group.iter().zip(encoded) {
            tokens.extend(ids);
            if let Some(with_eos) = part.closes {
                tokens.extend(with_eos.then_some(eos));
                ends.push(tokens.len() as u64);
            }
        }
    }
    Ok((ends, tokens))
}

/// Runs of parts, each with at least [`GROUP_BYTES`], except the last.
fn groups<'a, 'b>(parts: &'b [Piece<'a>]) -> impl Iterator<Item = &'b [Piece<'a>]> {
    let mut bytes = 0;
    parts.split_inclusive(move |part| {
        bytes += part.text.len();
        let full = bytes >= GROUP_BYTES;
        if full {
            bytes = 0;
        }
        full
    })
}

/// Cuts a text where the end-of-text token is spelt out in it: each piece becomes its own document, so that
/// attention does not cross the ends and the token occurs once. Empty text and pieces of only white space are
/// dropped.
fn parts<'a>(document: &'a Document, mark: &str, cut_anywhere: bool) -> Vec<Piece<'a>> {
    let mut pieces: Vec<(&str, bool)> = Vec::new();
    let mut rest = document.text.as_str();
    while !mark.is_empty()
        && let Some((piece, after)) = rest.split_once(mark)
    {
        pieces.push((piece, true));
        rest = after;
    }
    let only = pieces.is_empty();
    pieces.push((rest, document.ends));
    pieces.retain(|(text, _)| only && !text.is_empty() || !text.trim().is_empty());
    pieces.into_iter().flat_map(|(text, ends)| small_parts(text, ends, cut_anywhere)).collect()
}

fn small_parts(text: &str, ends: bool, cut_anywhere: bool) -> Vec<Piece<'_>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while cut_anywhere && rest.len() > PART_BYTES {
        let (head, tail) = rest.split_at(rest.floor_char_boundary(PART_BYTES));
        parts.push(Piece { text: head, closes: None });
        rest = tail;
    }
    parts.push(Piece { text: rest, closes: Some(ends) });
    parts
}
