//! The tokenizers that Telos makes: one token per byte, and a byte-level BPE trained on text.

use std::collections::BTreeMap;

use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, ModelWrapper, PreTokenizerWrapper};

use super::folder::CONFIG;
use crate::data::document::Document;

/// The only special token of the tokenizers made here: it ends every document.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// 256 bytes and [`END_OF_TEXT`].
pub(super) const LEAST_VOCABULARY: usize = 257;

/// The files saved with a tokenizer made here.
pub(super) fn other_files() -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([(CONFIG.to_owned(), own_config())])
}

/// The configuration of the tokenizers made here. No token is added automatically, so none is doubled.
fn own_config() -> Vec<u8> {
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "add_bos_token": false,
        "add_eos_token": false,
        "clean_up_tokenization_spaces": false,
    });
    format!("{config:#}\n").into_bytes()
}

pub(super) fn bytes_json() -> tokenizers::Result<Vec<u8>> {
    let characters = byte_characters();
    let vocabulary: [(String, u32); 256] = std::array::from_fn(|byte| (characters[byte].to_string(), byte as u32));
    let model = BPE::builder().vocab_and_merges(vocabulary, vec![]).build()?;
    let mut tokenizer = byte_level(model, false);
    tokenizer.add_special_tokens([AddedToken::from(END_OF_TEXT, true)])?;
    Ok(tokenizer.to_string(true)?.into_bytes())
}

pub(super) fn trained_json(documents: &[Document], vocab_size: usize) -> tokenizers::Result<Vec<u8>> {
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer = byte_level(BPE::default(), true);
    let mut wrapped = tokenizers::models::TrainerWrapper::from(trainer);
    tokenizer.train(&mut wrapped, documents.iter().map(|document| document.text.as_str()))?;
    Ok(tokenizer.to_string(true)?.into_bytes())
}

/// A byte-level tokenizer with this `model`; with `words`, text is first split into words as in GPT-2.
fn byte_level(model: BPE, words: bool) -> tokenizers::Tokenizer {
    let step = ByteLevel::new(false, false, words);
    let mut tokenizer = tokenizers::Tokenizer::new(ModelWrapper::from(model));
    tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::from(step)));
    tokenizer.with_decoder(Some(step));
    tokenizer
}

/// The characters that represent the bytes 0 to 255: a printable byte represents itself, the others get the
/// library's remaining characters in order.
fn byte_characters() -> [char; 256] {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut others = alphabet.iter().copied().filter(|&character| u32::from(character) > 255);
    std::array::from_fn(|byte| {
        let itself = char::from(byte as u8);
        if alphabet.contains(&itself) { itself } else { others.next().unwrap_or(itself) }
    })
}
