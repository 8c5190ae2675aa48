//! Data: from files or the quickstart world to packed batches of token ids.
//!
//! | step | file |
//! |---|---|
//! | open a file, extract its text, or name its format | [`reading`] |
//! | read the metadata of a GGUF file as a model's folder | [`gguf`] |
//! | download models and data of the Hugging Face hub | [`hub`] |
//! | find, read and check running text; split off held-out text | [`text`] |
//! | the sources that an experiment names: files or the quickstart world | [`sources`] |
//! | read rows, split off held-out ones, write them as text, tokenise them | [`rows`] |
//! | tokenise running text once, cache the ids on disk | [`tokenizer`], [`tokens`], [`cache`] |
//! | show how far reading and tokenising is | `progress` |
//! | one interface for running text and rows | [`examples`] |
//! | choose the sequences of each optimizer step, pack them into batches | [`batches`] |
//!
//! Targets and masks are shifted in [`batches::pack`] and nowhere else. This module does not depend on losses, models
//! or devices.

pub mod batches;
pub mod cache;
pub mod corpus;
pub mod document;
pub mod error;
pub mod examples;
pub mod gguf;
pub mod hub;
mod jinja;
pub mod place;
mod progress;
pub mod reading;
pub mod rows;
pub mod source;
pub mod sources;
pub mod text;
pub mod tokenizer;
pub mod tokens;

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

pub use batches::batcher::{BatchSize, Batcher, BatcherOptions, BatcherState};
pub use batches::pack::{PackedBatch, Sequence, Window};
pub use batches::{batcher, order, pack};
pub use corpus::Corpus;
pub use document::Document;
pub use error::{DataError, Result};
pub use examples::{Examples, TrainingData};
pub use reading::foreign;
pub use reading::inputs::Inputs;
pub use source::Source;
pub use sources::synthetic::SyntheticOptions;
pub use text::TextOptions;
pub use tokenizer::Tokenizer;
pub use tokenizer::stream::StreamDecoder;
pub use tokens::TokenSet;
