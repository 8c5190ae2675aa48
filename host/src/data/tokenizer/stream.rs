//! Decodes token by token, for text that is shown while it is generated. All pieces together are the text that decoding
//! at once returns.
//!
//! The `tokenizers` library has such a decoder too (`step_decode_stream`). It returns an error if later tokens change
//! text that it has shown, as an invalid byte does to a run of byte-fallback tokens: the whole run becomes U+FFFD.
//! Here such a run is held back until another token ends it.

use super::Tokenizer;
use crate::data::error::Result;

/// Stands for bytes that are not a character.
const REPLACEMENT: char = '\u{fffd}';

/// Turns ids into text as they are generated. A character whose bytes are spread over several tokens appears when
/// it is complete. A character made of byte-fallback tokens (`<0xE2>`) appears when a token of another kind follows.
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The ids that the next piece of text may depend on: first some that are already shown, then those held back.
    ids: Vec<u32>,
    /// The text of the ids already shown.
    shown: String,
    shown_ids: usize,
}

impl<'a> StreamDecoder<'a> {
    /// Returns the text that `id` completes: empty while a character is incomplete.
    ///
    /// # Errors
    /// Ids that the library cannot decode.
    pub fn push(&mut self, id: u32) -> Result<String> {
        Ok(self.released(id)?.map_or(String::new(), |released| released.piece().to_owned()))
    }

    /// Returns the text held back: the bytes of incomplete characters become U+FFFD. Call it once, at the end.
    ///
    /// # Errors
    /// As [`StreamDecoder::push`].
    pub fn finish(mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids, false)?;
        Ok(self.release(text)?.piece().to_owned())
    }

    /// Adds an id. Returns the ids that are complete with it, if their text cannot change any more.
    fn released(&mut self, id: u32) -> Result<Option<Released>> {
        // Decoding at once skips ids without a token.
        let Some(token) = self.tokenizer.token(id) else { return Ok(None) };
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(None);
        }
        self.ids.push(id);
        if is_byte(&token) {
            return Ok(None);
        }
        let text = self.tokenizer.decode(&self.ids, false)?;
        if text.len() <= self.shown.len() || text.ends_with(REPLACEMENT) {
            return Ok(None);
        }
        self.release(text).map(Some)
    }

    /// Marks all ids as shown; `text` is theirs.
    fn release(&mut self, text: String) -> Result<Released> {
        let kept = self.ids[self.shown_ids..].to_vec();
        let ids = std::mem::replace(&mut self.ids, kept);
        let shown = std::mem::replace(&mut self.shown, self.tokenizer.decode(&self.ids, false)?);
        let shown_ids = std::mem::replace(&mut self.shown_ids, self.ids.len());
        Ok(Released { ids, shown_ids, shown, text })
    }
}

/// Ids whose text is known: first those that were shown before, then new ones.
struct Released {
    ids: Vec<u32>,
    shown_ids: usize,
    /// The text of the first `shown_ids`.
    shown: String,
    /// The text of all.
    text: String,
}

impl Released {
    /// The text of the new ids.
    fn piece(&self) -> &str {
        &self.text[shared(&self.shown, &self.text)..]
    }

    /// Returns for each new id the number of characters of [`Released::piece`] up to its end. A character spread over
    /// several ids belongs to the last of them.
    fn ends(&self, tokenizer: &Tokenizer) -> Result<Vec<usize>> {
        let begin = shared(&self.shown, &self.text);
        let (mut ends, mut last) = (Vec::new(), 0);
        for length in self.shown_ids + 1..self.ids.len() {
            let text = tokenizer.decode(&self.ids[..length], false)?;
            let end = shared(&text, &self.text).max(begin);
            // Bytes that are a character, but not in a run with an invalid byte, would end before the bytes that precede them.
            last = self.text[begin..end].chars().count().max(last);
            ends.push(last);
        }
        ends.push(self.piece().chars().count());
        Ok(ends)
    }
}

/// The number of bytes of the characters that two texts begin with in common.
fn shared(one: &str, other: &str) -> usize {
    one.chars().zip(other.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

/// Whether a token is a byte of byte fallback. An ordinary token that looks like one is shown later, with the same text.
fn is_byte(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
}

impl Tokenizer {
    /// Decodes a text token by token, holding back incomplete characters.
    pub fn stream(&self, skip_special: bool) -> StreamDecoder<'_> {
        StreamDecoder { tokenizer: self, skip_special, ids: Vec::new(), shown: String::new(), shown_ids: 0 }
    }

    /// As [`Tokenizer::stream`], for the text after `before`. At the beginning of a text some tokenizers drop a word's leading
    /// space, which would make both together a different text.
    ///
    /// # Errors
    /// Ids that the library cannot decode.
    pub fn stream_after(&self, before: &[u32], skip_special: bool) -> Result<StreamDecoder<'_>> {
        let kept = |id: &u32| !(skip_special && self.is_special(*id));
        let mut ids: Vec<u32> = before.iter().copied().filter(kept).collect();
        // Bytes at its end are whole characters. An invalid byte that follows must not change them.
        let word = |id: &u32| self.token(*id).is_some_and(|token| !is_byte(&token));
        ids.truncate(ids.iter().rposition(word).map_or(0, |last| last + 1));
        let shown = self.decode(&ids, false)?;
        Ok(StreamDecoder { tokenizer: self, skip_special, shown_ids: ids.len(), ids, shown })
    }

    /// The text of `ids` after `before`, without special tokens; see [`Tokenizer::stream_after`].
    ///
    /// # Errors
    /// Ids that the library cannot decode.
    pub fn continuation(&self, before: &[u32], ids: &[u32]) -> Result<String> {
        let mut decoder = self.stream_after(before, true)?;
        let mut text = String::new();
        for id in ids {
            text += &decoder.push(*id)?;
        }
        Ok(text + &decoder.finish()?)
    }

    /// The text of `ids` after `before`, and for each id the number of characters up to its end; see
    /// [`Tokenizer::stream_after`]. Special tokens of `ids` have no text.
    ///
    /// # Errors
    /// Ids that the library cannot decode.
    pub fn continuation_with_ends(&self, before: &[u32], ids: &[u32]) -> Result<(String, Vec<usize>)> {
        let mut decoder = self.stream_after(before, false)?;
        let (mut text, mut characters, mut ends) = (String::new(), 0, vec![None; ids.len()]);
        // Positions of ids that the decoder holds back.
        let mut held = Vec::new();
        let mut place = |released: Released, held: &mut Vec<usize>| -> Result<()> {
            let found = released.ends(self)?;
            held.drain(..).zip(&found).for_each(|(at, end)| ends[at] = Some(characters + end));
            text += released.piece();
            characters += released.piece().chars().count();
            Ok(())
        };
        for (at, id) in ids.iter().enumerate() {
            if self.token(*id).is_none() || self.is_special(*id) {
                continue;
            }
            held.push(at);
            if let Some(released) = decoder.released(*id)? {
                place(released, &mut held)?;
            }
        }
        if !held.is_empty() {
            let rest = self.decode(&decoder.ids, false)?;
            place(decoder.release(rest)?, &mut held)?;
        }
        // An id without text ends where the one before it does.
        let mut last = 0;
        let ends = ends.into_iter().map(|end| {
            last = end.unwrap_or(last);
            last
        });
        Ok((text, ends.collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use telos_random::Rng;

    use super::*;
    use crate::data::tokenizer::folder::Folder;
    use crate::data::tokenizer::sentencepiece::{Piece, PieceKind, Pieces};

    /// Ids of the tokenizer below.
    const BYTES: u32 = 3;

    /// A tokenizer of sentencepiece with byte fallback: ids 3 to 258 are bytes, as in Llama's first vocabularies.
    fn byte_fallback() -> Tokenizer {
        let piece = |text: &str, kind| Piece { text: text.to_owned(), score: 0.0, kind };
        let mut pieces = vec![piece("<unk>", PieceKind::Unknown)];
        pieces.extend(["<s>", "</s>"].map(|text| piece(text, PieceKind::Control)));
        pieces.extend((0..256).map(|byte| piece(&format!("<0x{byte:02X}>"), PieceKind::Byte)));
        let words = ["\u{2581}", "a", "b", "\u{2581}a", "ab", "é", "–", "\u{2581}\u{2581}", "\u{fffd}"];
        pieces.extend(words.map(|text| piece(text, PieceKind::Normal)));
        let json = serde_json::to_vec(&Pieces { pieces, adds_space: true }.json().unwrap()).unwrap();
        Tokenizer::new(Folder { name: "fallback".into(), json, other_files: BTreeMap::new(), read: Vec::new() })
            .unwrap()
    }

    /// Ids of the byte tokens of a text.
    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(|byte| BYTES + u32::from(byte)).collect()
    }

    /// Catches an error where an invalid byte follows a character of byte-fallback tokens, text that is shown before such a
    /// byte changes it, and characters that are counted twice or not at all.
    #[test]
    fn a_stream_of_random_ids_is_what_decoding_at_once_returns() {
        let mut rng = Rng::new(&[7]);
        for tokenizer in [Tokenizer::bytes().unwrap(), byte_fallback()] {
            let size = tokenizer.vocab_size() as u64 + 2;
            // Bytes are the first tokens of these vocabularies, so that many follow each other.
            for round in 0..3000_u64 {
                let below = if round % 3 == 0 { size } else { 300 };
                let ids: Vec<u32> = (0..round % 24).map(|_| rng.below(below) as u32).collect();
                for skip in [false, true] {
                    let whole = tokenizer.decode(&ids, skip).unwrap();
                    let mut stream = tokenizer.stream(skip);
                    let mut text = String::new();
                    for id in &ids {
                        text += &stream.push(*id).unwrap();
                        assert!(whole.starts_with(&text), "{text:?} of {whole:?}, {ids:?}");
                    }
                    assert_eq!(text + &stream.finish().unwrap(), whole, "{ids:?}");
                }
                let (text, ends) = tokenizer.continuation_with_ends(&[], &ids).unwrap();
                assert_eq!(text, tokenizer.decode(&ids, true).unwrap(), "{ids:?}");
                assert!(ends.is_sorted(), "{ends:?}");
                assert_eq!(ends.last().copied().unwrap_or(0), text.chars().count(), "{ids:?}");
            }
        }
    }

    /// Catches an answer that changes the prompt's last bytes, a leading space that is lost, and the prompt's text in the answer.
    #[test]
    fn an_answer_is_the_text_after_its_prompt() {
        let tokenizer = byte_fallback();
        let (a, space_a, dash) = (tokenizer.id("a").unwrap(), tokenizer.id("\u{2581}a").unwrap(), bytes("–"));
        let prompt = [&[1, space_a][..], &bytes("–\n")].concat();
        let of = |ids: &[u32]| tokenizer.continuation(&prompt, ids).unwrap();
        assert_eq!(of(&[space_a]), " a");
        assert_eq!(of(&[BYTES + 0xff, a]), "\u{fffd}a");
        assert_eq!(of(&[&dash[..], &[a]].concat()), "–a");
        assert_eq!(of(&[&dash[..2], &[a]].concat()), "\u{fffd}\u{fffd}a");
        assert_eq!(of(&[]), "");
        let of = |ids: &[u32]| tokenizer.continuation(&bytes("–"), ids).unwrap();
        assert_eq!(of(&[BYTES + 0xff, a]), "\u{fffd}a", "a prompt of bytes alone");
        // Half a character at the end of a prompt of bytes.
        let tokenizer = Tokenizer::bytes().unwrap();
        assert_eq!(tokenizer.continuation(&[0xc3], &[0xa9, 97]).unwrap(), "éa");
        assert_eq!(tokenizer.continuation(&[0xc3], &[97]).unwrap(), "a");
    }

    /// Catches bytes that end with the token after them, which would move the end of a segment to the next one.
    #[test]
    fn a_byte_token_ends_where_its_character_does() {
        let tokenizer = byte_fallback();
        let a = tokenizer.id("a").unwrap();
        let of = |ids: &[u32]| tokenizer.continuation_with_ends(&[1, a], ids).unwrap();
        let line = [&[a][..], &bytes("\n"), &[a], &bytes("–"), &[2]].concat();
        assert_eq!(of(&line), ("a\na–".to_owned(), vec![1, 2, 3, 3, 3, 4, 4]));
        assert_eq!(of(&[BYTES + 0xff, BYTES + 10, a]), ("\u{fffd}\u{fffd}a".to_owned(), vec![1, 2, 3]));
        assert_eq!(of(&[]), (String::new(), vec![]));
    }
}
