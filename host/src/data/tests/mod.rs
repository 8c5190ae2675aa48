//! Laws of the data path, and the field's library as reference for tokens.

mod answers;
mod batching;
mod cached;
mod chats;
mod folders;
mod formats;
mod left_out;
mod marks;
mod packing;
mod pairs;
mod prompts;
mod rows;
mod shapes;
mod splitting;
mod synthetic;
mod templates;
mod texts;
mod tokenizing;

use std::path::PathBuf;

use super::{Document, TokenSet, Tokenizer};

/// The folder of reference files: `TELOS_ORACLES`, or the project's own.
pub fn references() -> PathBuf {
    match std::env::var_os("TELOS_ORACLES") {
        Some(folder) => folder.into(),
        None => [env!("CARGO_MANIFEST_DIR"), "..", "tests", "references"].iter().collect(),
    }
}

/// Documents that end.
fn documents(texts: &[&str]) -> Vec<Document> {
    texts.iter().map(|&text| Document { text: text.into(), ends: true }).collect()
}

/// The texts as bytes, each with its end-of-text token (256).
fn byte_tokens(texts: &[&str]) -> TokenSet {
    TokenSet::load(&documents(texts), &Tokenizer::bytes().unwrap(), None).unwrap()
}
