//! Documents on both sides of a split, and their tokens: the result of every source of running text.

use std::path::Path;
use std::sync::Arc;

use super::document::Document;
use super::error::{DataError, Result};
use super::examples::TrainingData;
use super::source::Source;
use super::tokenizer::Tokenizer;
use super::tokens::TokenSet;

/// Text to train on and held-out text; no document or part of one is on both sides.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    /// Its name in messages.
    pub name: String,
    /// Text to train on.
    pub train: Vec<Document>,
    /// Text to evaluate on; empty if none was requested.
    pub held_out: Vec<Document>,
    /// The files that it came from.
    pub sources: Vec<Source>,
}

impl Corpus {
    /// Tokenises both sides, or reads their tokens from the cache folder.
    ///
    /// # Errors
    /// Fewer training tokens than one sequence of `context` needs; a tokenizer without an end-of-text token.
    pub fn tokenize(&self, tokenizer: &Tokenizer, context: usize, cache: Option<&Path>) -> Result<TrainingData> {
        let train = TokenSet::load(&self.train, tokenizer, cache)?;
        if train.tokens() < context as u64 + 1 {
            return Err(DataError::TooShort { what: self.name.clone(), tokens: train.tokens(), context });
        }
        let held_out = TokenSet::load(&self.held_out, tokenizer, cache)?;
        Ok(TrainingData {
            train: Arc::new(train),
            held_out: Arc::new(held_out),
            sources: self.sources.clone(),
            rows: None,
            chat_template: None,
        })
    }
}
