//! The batcher's view of a data set: running text cut into spans, or whole rows.

use std::fmt::Debug;
use std::sync::Arc;

use super::batches::order::{self, DocumentSpan};
use super::batches::pack::Sequence;
use super::rows::counts::RowCounts;
use super::rows::text::RowText;
use super::source::Source;
use super::tokens::TokenSet;

/// A tokenised data set. Its order is a pure function of the arguments.
pub trait Examples: Debug + Send + Sync {
    /// Identifies the data and the tokenizer that these tokens come from, in hexadecimal.
    fn key(&self) -> String;

    /// The number of documents or rows.
    fn documents(&self) -> usize;

    /// The number of tokens.
    fn tokens(&self) -> u64;

    /// The spans of an epoch in training order. `prefix`: a token precedes every text.
    fn epoch(&self, context: usize, prefix: bool, seed: u64, epoch: u64) -> Vec<DocumentSpan>;

    /// All spans in the data's own order.
    fn in_order(&self, context: usize, prefix: bool) -> Vec<DocumentSpan>;

    /// The sequences of a span, before the shift: one sequence, or the two answers of a pair, the chosen one
    /// first. The answers of a pair carry the number `group`.
    fn sequences(&self, span: DocumentSpan, prefix: Option<u32>, group: u64) -> Vec<Sequence>;

    /// The expected length of a span, in positions.
    fn usual_length(&self, context: usize) -> usize;

    /// `kept` of `all` spans, always the same ones, in order and from all over the data.
    fn some(&self, all: Vec<DocumentSpan>, kept: usize) -> Vec<DocumentSpan>;

    /// The text of the row with the index [`Sequence::row`]; `None` for running text.
    fn row_text(&self, _row: u64) -> Option<RowText> {
        None
    }
}

/// A data set on both sides of the split, ready for batches.
#[derive(Clone, Debug)]
pub struct TrainingData {
    /// What to train on.
    pub train: Arc<dyn Examples>,
    /// What to evaluate on; empty if nothing is held out.
    pub held_out: Arc<dyn Examples>,
    /// The files that it came from.
    pub sources: Vec<Source>,
    /// How many rows were used, dropped and truncated; `None` for running text.
    pub rows: Option<RowCounts>,
    /// The chat template that rows were written with, to be saved with the model.
    pub chat_template: Option<String>,
}

impl Examples for TokenSet {
    fn key(&self) -> String {
        TokenSet::key(self)
    }

    fn documents(&self) -> usize {
        TokenSet::documents(self)
    }

    fn tokens(&self) -> u64 {
        TokenSet::tokens(self)
    }

    fn epoch(&self, context: usize, prefix: bool, seed: u64, epoch: u64) -> Vec<DocumentSpan> {
        order::epoch(self, context, prefix, seed, epoch)
    }

    fn in_order(&self, context: usize, prefix: bool) -> Vec<DocumentSpan> {
        order::in_order(self, context, prefix)
    }

    fn sequences(&self, span: DocumentSpan, prefix: Option<u32>, _group: u64) -> Vec<Sequence> {
        vec![span.sequence(self, prefix)]
    }

    fn usual_length(&self, context: usize) -> usize {
        context
    }

    fn some(&self, all: Vec<DocumentSpan>, kept: usize) -> Vec<DocumentSpan> {
        (0..kept).filter_map(|i| all.get(i * all.len() / kept).copied()).collect()
    }
}
