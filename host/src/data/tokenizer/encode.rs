//! Encodes text to token ids, with or without the tokens' places, and decodes ids to text.

use rayon::prelude::*;

use super::{Tokenizer, library};
use crate::data::error::Result;

const CANNOT_ENCODE: &str = "it cannot encode";

/// A text's tokens, each with its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The tokens as the vocabulary writes them.
    pub tokens: Vec<String>,
    /// First code point and one past the last, in code points of the text. Tokens that share a character share its place.
    pub offsets: Vec<(usize, usize)>,
}

/// A text's tokens and their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Token ids.
    pub ids: Vec<u32>,
    /// As in [`Encoded`].
    pub offsets: Vec<(usize, usize)>,
}

impl Tokenizer {
    /// Token ids of `text` alone: nothing is added. Special tokens written out in the text are recognised.
    ///
    /// # Errors
    /// A token for which the model has no row; see [`Tokenizer::fit_to_model`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.ids(text)?;
        self.within_model(&ids)?;
        Ok(ids)
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let encode = || Ok(self.inner.encode_fast(text, false)?.get_ids().to_vec());
        library::run(&self.name, CANNOT_ENCODE, encode)
    }

    /// Token ids of `text` as an input of the model: with exactly one [`Tokenizer::prefix`] in front.
    pub fn encode_input(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text)?;
        if let Some(prefix) = self.prefix()
            && ids.first() != Some(&prefix)
        {
            ids.insert(0, prefix);
        }
        Ok(ids)
    }

    /// [`Tokenizer::encode`] for many texts, in parallel, in order.
    pub fn encode_many(&self, texts: Vec<&str>) -> Result<Vec<Vec<u32>>> {
        let all: Vec<Vec<u32>> = texts.into_par_iter().map(|text| self.ids(text)).collect::<Result<_>>()?;
        all.iter().try_for_each(|ids| self.within_model(ids))?;
        Ok(all)
    }

    /// Token ids of many texts with the tokens' places, in parallel, in order. Does not check whether the model has
    /// rows for them: see [`Tokenizer::within_model`].
    pub fn encode_placed(&self, texts: Vec<&str>) -> Result<Vec<Placed>> {
        let place = |text: &str| {
            let encoding = self.inner.encode_char_offsets(text, false)?;
            Ok(Placed { ids: encoding.get_ids().into(), offsets: encoding.get_offsets().into() })
        };
        let guarded = |text: &str| library::run(&self.name, CANNOT_ENCODE, || place(text));
        texts.into_par_iter().map(guarded).collect()
    }

    /// Token ids of `text`, with the tokens' texts and places.
    pub fn encode_with_offsets(&self, text: &str) -> Result<Encoded> {
        let encoding = library::run(&self.name, CANNOT_ENCODE, || self.inner.encode_char_offsets(text, false))?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            tokens: encoding.get_tokens().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
        })
    }

    /// The text of `ids`. Bytes that do not form a character become U+FFFD. Ids outside the vocabulary are left
    /// out, and with `skip_special` also those for which [`Tokenizer::is_special`] is true.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let kept: Vec<u32> = ids.iter().copied().filter(|id| !(skip_special && self.is_special(*id))).collect();
        library::run(&self.name, "it cannot decode", || self.inner.decode(&kept, false))
    }

    /// The text of tokens in pieces, a new one wherever `flags` change, each with its flag. White space where two pieces meet is kept,
    /// which decoding each of them alone would lose with vocabularies whose tokens begin with a space.
    pub fn decode_pieces(&self, ids: &[u32], flags: &[bool]) -> Result<Vec<(String, bool)>> {
        // What decoding removes at the beginning stands behind the tokens that begin a text.
        let lead = ids.iter().take_while(|id| self.is_special(**id)).count();
        let mut pieces: Vec<(String, bool)> = Vec::new();
        for part in [0..lead, lead..ids.len()] {
            let ids = ids.get(part.clone()).unwrap_or_default();
            let (mut end, mut before) = (0, String::new());
            for run in flags.get(part).unwrap_or_default().chunk_by(|a, b| a == b) {
                let begin = end;
                end += run.len();
                let whole = self.decode(ids.get(..end).unwrap_or_default(), false)?;
                // A character whose bytes are in two pieces is decoded differently in each.
                let text = match whole.strip_prefix(before.as_str()) {
                    Some(text) => text.to_owned(),
                    None => self.decode(ids.get(begin..end).unwrap_or_default(), false)?,
                };
                before = whole;
                let flag = run.first().copied().unwrap_or_default();
                match pieces.last_mut().filter(|(_, last)| *last == flag) {
                    Some((last, _)) => last.push_str(&text),
                    None => pieces.push((text, flag)),
                }
            }
        }
        Ok(pieces)
    }
}
