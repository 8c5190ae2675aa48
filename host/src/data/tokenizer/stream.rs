//! Decodes token by token, for text that is shown while it is generated, by the library's rule for decoding in
//! steps.

use tokenizers::{DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

use super::{Tokenizer, library};
use crate::data::error::Result;

/// Turns ids into text as they are generated. A character whose bytes are spread over several tokens appears when
/// it is complete.
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
    fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), shown: String::new(), shown_ids: 0 }
    }

    /// Returns the text that `id` completes: empty while a character is incomplete.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        let (inner, ids) = (self.tokenizer.inner(), &mut self.ids);
        let (shown, shown_ids) = (&mut self.shown, &mut self.shown_ids);
        let step = || {
            tokenizers::tokenizer::step_decode_stream::<
                ModelWrapper,
                NormalizerWrapper,
                PreTokenizerWrapper,
                PostProcessorWrapper,
                DecoderWrapper,
            >(inner, vec![id], false, ids, shown, shown_ids)
        };
        library::run(self.tokenizer.name(), "it cannot decode a stream", step).map(Option::unwrap_or_default)
    }

    /// Returns the text held back: the bytes of incomplete characters become U+FFFD. Call it once, at the end.
    pub fn finish(self) -> Result<String> {
        let all = self.tokenizer.decode(&self.ids, false)?;
        Ok(all.strip_prefix(self.shown.as_str()).unwrap_or_default().to_owned())
    }
}

impl Tokenizer {
    /// Decodes a text token by token, holding back incomplete characters.
    pub fn stream(&self, skip_special: bool) -> StreamDecoder<'_> {
        StreamDecoder::new(self, skip_special)
    }

    /// The text of `ids` after `before`, without special tokens. At the beginning of a text some tokenizers drop a word's
    /// leading space, which would make both together a different text.
    ///
    /// # Errors
    /// Ids that the library cannot decode.
    pub fn continuation(&self, before: &[u32], ids: &[u32]) -> Result<String> {
        let mut decoder = self.stream(true);
        for id in before {
            decoder.push(*id)?;
        }
        let mut text = String::new();
        for id in ids {
            text += &decoder.push(*id)?;
        }
        Ok(text + &decoder.finish()?)
    }
}
