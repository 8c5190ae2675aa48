//! Data: from files or the quickstart world to packed batches of token ids.
//!
//! | step | file |
//! |---|---|
//! | take the text out of a file, or say what the file is | [`mod@format`] |
//! | find, read and check running text; hold some out | [`text`], [`synthetic`] (both make a [`Corpus`]) |
//! | read rows, hold some out, write them as text, tokenise them | [`rows`] |
//! | what a file or name is where something else is wanted | [`foreign`] |
//! | panics of libraries on files of other people become errors | [`guard`] |
//! | tokenise it once, keep the ids on disk | [`tokenizer`], [`tokens`], [`cache`] |
//! | choose the sequences of each optimizer step | [`order`] (a pure function of seed, epoch and index), [`batcher`] (counters only) |
//! | shift targets and masks, lay sequences end to end, cut micro-batches | [`pack`] |
//!
//! Targets and masks are shifted in [`pack`] and nowhere else. What a loss is, what a model is and what a device is are
//! not known here.

pub mod batcher;
pub mod cache;
pub mod corpus;
mod error;
pub mod examples;
pub mod foreign;
pub mod format;
pub(crate) mod guard;
pub mod inputs;
mod jinja;
pub mod order;
pub mod pack;
pub mod rows;
pub mod stream;
pub mod synthetic;
pub mod text;
pub mod tokenizer;
pub mod tokens;

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

pub use batcher::{BatchSize, Batcher, BatcherOptions, BatcherState};
pub use corpus::{Corpus, Document, Source};
pub use error::DataError;
pub use examples::{Examples, TrainingData};
pub use inputs::Inputs;
pub use pack::{PackedBatch, Sequence, Window};
pub use stream::StreamDecoder;
pub use synthetic::SyntheticOptions;
pub use text::TextOptions;
pub use tokenizer::Tokenizer;
pub use tokens::TokenSet;

/// The result of reading and preparing data.
pub type Result<T, E = DataError> = std::result::Result<T, E>;
