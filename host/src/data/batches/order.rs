//! Which span of which document is a sequence, and in which order they are read: pure functions of their
//! arguments, so that resuming needs only counters.
//!
//! Text is cut into spans of at most `context` targets; every token is a target exactly once per epoch (except
//! a document's first token if no prefix precedes it). A document longer than the context is cut at places that
//! change from epoch to epoch, by a seeded offset in [0, context): otherwise each token would always have the same
//! position, and the first tokens after each cut would always lack context. This yields random windows, as sampling
//! with replacement does, but sampling would leave a third of the text unread in each epoch's number of steps.

use telos_random::Rng;

use super::pack::Sequence;
use crate::data::tokens::TokenSet;

/// Separates the random streams.
const ORDER: u64 = 1;
const OFFSET: u64 = 2;
const SOME: u64 = 3;

/// The targets `begin..end` of one document, as positions in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DocumentSpan {
    /// The document's number.
    pub document: u32,
    /// The first target.
    pub begin: u32,
    /// One past the last target.
    pub end: u32,
}

impl DocumentSpan {
    /// The number of targets, which is also the number of the model's positions.
    pub fn targets(&self) -> usize {
        (self.end - self.begin) as usize
    }

    /// Returns its tokens: `prefix`, or else the token before the first target, and then the targets. All are
    /// supervised except the first token, which is only read.
    pub fn sequence(&self, tokens: &TokenSet, prefix: Option<u32>) -> Sequence {
        let document = tokens.document(self.document as usize);
        let begin = (self.begin as usize).saturating_sub(usize::from(prefix.is_none()));
        let targets = document.get(begin..self.end as usize).unwrap_or_default();
        let ids: Vec<u32> = prefix.into_iter().chain(targets.iter().copied()).collect();
        let supervised = (0..ids.len()).map(|place| place > 0).collect();
        Sequence { supervised, ids, row: u64::from(self.document), ..Default::default() }
    }
}

/// Returns the spans of an epoch in training order: cut with this epoch's offsets, then shuffled.
pub fn epoch(tokens: &TokenSet, context: usize, prefix: bool, seed: u64, epoch: u64) -> Vec<DocumentSpan> {
    let spans = cut(tokens, context, prefix, |document| {
        Rng::new(&[seed, OFFSET, epoch, document]).below(context as u64) as usize
    });
    shuffled(spans, seed, epoch, context)
}

/// Shuffles spans into the training order of an epoch.
pub fn shuffled(mut spans: Vec<DocumentSpan>, seed: u64, epoch: u64, context: usize) -> Vec<DocumentSpan> {
    Rng::new(&[seed, ORDER, epoch, context as u64]).shuffle(&mut spans);
    spans
}

/// Returns `kept` of `all`, chosen at random but the same every time, in their order.
pub fn some(mut all: Vec<DocumentSpan>, kept: usize) -> Vec<DocumentSpan> {
    Rng::new(&[SOME]).shuffle(&mut all);
    all.truncate(kept);
    all.sort_unstable();
    all
}

/// Returns all spans in the text's own order, cut without an offset, as evaluation reads them.
pub fn in_order(tokens: &TokenSet, context: usize, prefix: bool) -> Vec<DocumentSpan> {
    cut(tokens, context, prefix, |_| 0)
}

/// `offset(document)` is the length of the first span of a document that is longer than the context; 0 for one
/// of full length.
fn cut(tokens: &TokenSet, context: usize, prefix: bool, offset: impl Fn(u64) -> usize) -> Vec<DocumentSpan> {
    let mut spans = Vec::new();
    // Without a prefix nothing precedes the first token, so it cannot be predicted.
    let first = usize::from(!prefix);
    for document in 0..tokens.documents() {
        let length = tokens.document(document).len();
        let mut begin = first;
        while begin < length {
            let long = length - first > context;
            let head = if begin == first && long { offset(document as u64) } else { 0 };
            let end = length.min(begin + if head == 0 { context.max(1) } else { head });
            spans.push(DocumentSpan { document: document as u32, begin: begin as u32, end: end as u32 });
            begin = end;
        }
    }
    spans
}
