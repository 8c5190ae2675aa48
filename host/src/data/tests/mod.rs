//! Laws of the data path, with the field's library as the reference for tokens.

mod batching;
mod cached;
mod containers;
mod folders;
mod formats;
mod packing;
mod rows;
mod synthetic;
mod texts;
mod tokenizing;

use std::path::PathBuf;

use super::document::Document;
use super::tokenizer::Tokenizer;
use super::tokens::TokenSet;

/// The folder of reference files: `TELOS_ORACLES`, or the project's own.
pub fn references() -> PathBuf {
    match std::env::var_os("TELOS_ORACLES") {
        Some(folder) => folder.into(),
        None => [env!("CARGO_MANIFEST_DIR"), "..", "tests", "references"].iter().collect(),
    }
}

/// Documents with an end.
fn documents(texts: &[&str]) -> Vec<Document> {
    texts.iter().map(|&text| Document { text: text.into(), ends: true }).collect()
}

/// The texts as bytes, each with its end-of-text token (256).
fn byte_tokens(texts: &[&str]) -> TokenSet {
    TokenSet::load(&documents(texts), &Tokenizer::bytes().unwrap(), None).unwrap()
}
