//! What batches are made of, seen by the batcher: running text cut into stretches, or rows taken whole.

use std::fmt::Debug;
use std::sync::Arc;

use super::batches::order::{self, Stretch};
use super::batches::pack::Sequence;
use super::rows::counts::RowCounts;
use super::rows::text::RowText;
use super::source::Source;
use super::tokens::TokenSet;

/// A tokenised data set. Everything about its order is a pure function of the arguments.
pub trait Examples: Debug + Send + Sync {
    /// Says which data and which tokenizer these tokens come from, in hexadecimal.
    fn key(&self) -> String;

    /// How many documents or rows there are.
    fn documents(&self) -> usize;

    /// How many tokens there are.
    fn tokens(&self) -> u64;

    /// The stretches of an epoch, in the order of training. `prefix` says whether a token precedes every text.
    fn epoch(&self, context: usize, prefix: bool, seed: u64, epoch: u64) -> Vec<Stretch>;

    /// All stretches in the data's own order.
    fn in_order(&self, context: usize, prefix: bool) -> Vec<Stretch>;

    /// A stretch before the shift: one sequence, or the answers of a pair, the chosen one first, which then carry `group` as
    /// the number they share.
    fn sequences(&self, stretch: Stretch, prefix: Option<u32>, group: u64) -> Vec<Sequence>;

    /// The length to expect of a stretch, in positions.
    fn usual_length(&self, context: usize) -> usize;

    /// So many of `all` stretches, always the same ones, in order and from everywhere.
    fn some(&self, all: Vec<Stretch>, kept: usize) -> Vec<Stretch>;

    /// The words of the row that a sequence names as its [`Sequence::row`]; none for running text.
    fn row_text(&self, _row: u64) -> Option<&RowText> {
        None
    }
}

/// A data set on both sides of the split, ready for batches.
#[derive(Clone, Debug)]
pub struct TrainingData {
    /// What to train on.
    pub train: Arc<dyn Examples>,
    /// What to evaluate on; empty where nothing was held out.
    pub held_out: Arc<dyn Examples>,
    /// Where it came from.
    pub sources: Vec<Source>,
    /// What became of the rows; `None` for running text.
    pub rows: Option<RowCounts>,
    /// The chat template that rows were written with, to go with the model.
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

    fn epoch(&self, context: usize, prefix: bool, seed: u64, epoch: u64) -> Vec<Stretch> {
        order::epoch(self, context, prefix, seed, epoch)
    }

    fn in_order(&self, context: usize, prefix: bool) -> Vec<Stretch> {
        order::in_order(self, context, prefix)
    }

    fn sequences(&self, stretch: Stretch, prefix: Option<u32>, _group: u64) -> Vec<Sequence> {
        vec![stretch.sequence(self, prefix)]
    }

    fn usual_length(&self, context: usize) -> usize {
        context
    }

    fn some(&self, all: Vec<Stretch>, kept: usize) -> Vec<Stretch> {
        (0..kept).filter_map(|i| all.get(i * all.len() / kept).copied()).collect()
    }
}
