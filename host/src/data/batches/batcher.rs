//! The sequences of each optimizer step. The state is a few counters: everything else follows from the seed and the
//! data.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::order::DocumentSpan;
use super::pack::{PackedBatch, Sequence, Window, pack};
use crate::data::error::{DataError, Result};
use crate::data::examples::Examples;

/// How much data one optimizer step reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// This many sequences, pairs or prompts.
    Sequences(usize),
    /// As many whole sequences as fit into this many positions, at least one.
    Tokens(usize),
}

impl BatchSize {
    /// Whether a window of `sequences` and `positions` has room for one more sequence of `next` positions.
    fn takes(self, sequences: usize, positions: usize, next: usize) -> bool {
        match self {
            BatchSize::Sequences(most) => sequences < most,
            BatchSize::Tokens(most) => sequences == 0 || positions + next <= most,
        }
    }
}

/// How data is batched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatcherOptions {
    /// Decides where text is cut, and the order.
    pub seed: u64,
    /// The size of a window.
    pub batch: BatchSize,
    /// The token that every sequence begins with; see [`Tokenizer::prefix`](crate::data::tokenizer::Tokenizer::prefix).
    pub prefix: Option<u32>,
    /// Stop after this many epochs. Each epoch's last window may be short, so that every epoch reads every row
    /// exactly once. With `None` there is no end, and windows cross from one epoch into the next.
    pub epochs: Option<u64>,
}

/// A place in the data order. Saved with a checkpoint; restored, it yields exactly the same following windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatcherState {
    /// Epochs begun before this one.
    pub epoch: u64,
    /// Sequences (pairs, prompts) of this epoch that have been read.
    pub taken: u64,
    /// The context length this epoch was cut for; 0 before the first window.
    pub context: usize,
    /// Sequences read in all epochs.
    pub sequences: u64,
    /// Positions read in all epochs.
    pub positions: u64,
    /// Identifies the tokens that the counters belong to: [`Examples::key`].
    pub data: String,
}

/// Yields the window of each optimizer step.
#[derive(Debug)]
pub struct Batcher {
    tokens: Arc<dyn Examples>,
    options: BatcherOptions,
    state: BatcherState,
    /// The spans of the state's epoch and context; computed when first needed.
    spans: Vec<DocumentSpan>,
}

impl Batcher {
    /// Returns a batcher at the beginning of `tokens`.
    ///
    /// # Errors
    /// A batch size of 0, 0 epochs, or text without a single target.
    pub fn new(tokens: Arc<dyn Examples>, options: BatcherOptions) -> Result<Batcher> {
        if matches!(options.batch, BatchSize::Sequences(0) | BatchSize::Tokens(0)) || options.epochs == Some(0) {
            return Err(DataError::Option(
                "a batch needs at least one sequence or token, and a run at least one epoch".into(),
            ));
        }
        if tokens.in_order(u32::MAX as usize, options.prefix.is_some()).is_empty() {
            return Err(DataError::Empty("the training data".into()));
        }
        let state = BatcherState { epoch: 0, taken: 0, context: 0, sequences: 0, positions: 0, data: tokens.key() };
        Ok(Batcher { tokens, options, state, spans: Vec::new() })
    }

    /// The place in the data order: what has been read so far.
    pub fn state(&self) -> &BatcherState {
        &self.state
    }

    /// The data that windows are taken from.
    pub fn examples(&self) -> &dyn Examples {
        &*self.tokens
    }

    /// The token that every sequence begins with.
    pub fn prefix(&self) -> Option<u32> {
        self.options.prefix
    }

    /// Moves to a saved place.
    ///
    /// # Errors
    /// The place belongs to other data, or lies beyond the end of its epoch.
    pub fn restore(&mut self, state: BatcherState) -> Result<()> {
        if state.data != self.tokens.key() {
            return Err(DataError::Resume(
                "the training text or the tokenizer has changed since the checkpoint".into(),
            ));
        }
        self.state = state;
        self.spans = self.epoch_spans();
        if self.state.taken > self.spans.len() as u64 {
            let (read, available) = (self.state.taken, self.spans.len());
            return Err(DataError::Resume(format!(
                "the checkpoint has read {read} sequences of an epoch that has only {available}"
            )));
        }
        Ok(())
    }

    /// Returns the next window, with at most `context` positions per sequence; `None` after the last epoch. A new
    /// context length begins a new epoch, since text cut differently has another order.
    ///
    /// # Errors
    /// A context of 0, or a new context in the middle of an epoch if the number of epochs is limited.
    pub fn next_window(&mut self, context: usize) -> Result<Option<Window>> {
        self.next_sequences(context)?.map(Window::new).transpose()
    }

    /// Returns the sequences of the next window, none of which need be supervised: used for prompts whose answers
    /// are sampled later.
    ///
    /// # Errors
    /// As [`Batcher::next_window`].
    pub fn next_sequences(&mut self, context: usize) -> Result<Option<Vec<Sequence>>> {
        self.next_of(context, self.options.batch)
    }

    /// Returns the next `count` sequences of the data, or fewer at the end of an epoch if the number of epochs is limited; none
    /// after the last epoch.
    ///
    /// # Errors
    /// As [`Batcher::next_window`].
    pub fn next_few(&mut self, context: usize, count: usize) -> Result<Vec<Sequence>> {
        Ok(self.next_of(context, BatchSize::Sequences(count))?.unwrap_or_default())
    }

    fn next_of(&mut self, context: usize, size: BatchSize) -> Result<Option<Vec<Sequence>>> {
        let spans = self.take_of(context, size)?;
        if spans.is_empty() {
            return Ok(None);
        }
        // Groups are numbered within the window, because a row may occur twice where windows cross from one epoch
        // into the next.
        let groups = spans.iter().zip(0..);
        let sequences = groups.flat_map(|(span, group)| self.tokens.sequences(*span, self.options.prefix, group));
        Ok(Some(sequences.collect()))
    }

    /// How many windows are left until the last epoch ends, at this context length; `None` if the epochs are not
    /// limited.
    pub fn windows_left(&self, context: usize) -> Result<Option<u64>> {
        if self.options.epochs.is_none() {
            return Ok(None);
        }
        // The cuts differ from epoch to epoch, so the windows have to be counted one by one.
        let mut ahead = self.ahead();
        let mut windows = 0;
        while !ahead.take(context)?.is_empty() {
            windows += 1;
        }
        Ok(Some(windows))
    }

    /// Returns the number of sequences (pairs, prompts) in each window of `epochs` passes over the data from its
    /// beginning, at this context length. If `epochs` has a fraction, the last pass contributes that fraction of its
    /// windows, rounded up. There is at least one window.
    ///
    /// # Errors
    /// As [`Batcher::next_window`].
    pub fn windows_of(&self, epochs: f64, context: usize) -> Result<Vec<usize>> {
        let options = BatcherOptions { epochs: Some(epochs.ceil().max(1.0) as u64), ..self.options.clone() };
        let mut ahead = Batcher::new(self.tokens.clone(), options)?;
        let (mut windows, mut before_last) = (Vec::new(), 0);
        loop {
            let size = ahead.take(context)?.len();
            if size == 0 {
                break;
            }
            windows.push(size);
            if (ahead.state.epoch as f64) < epochs.floor() {
                before_last = windows.len();
            }
        }
        let part = (windows.len() - before_last) as f64 * (epochs - epochs.floor());
        windows.truncate((before_last + part.ceil() as usize).max(1));
        Ok(windows)
    }

    /// Returns the number of sequences (pairs, prompts) in an epoch at this context length, and in the first window.
    /// The second is larger if the batch is larger than the data: the window then repeats sequences.
    ///
    /// # Errors
    /// As [`Batcher::next_window`].
    pub fn first_window(&self, context: usize) -> Result<(usize, usize)> {
        let of = |epochs| Batcher::new(self.tokens.clone(), BatcherOptions { epochs, ..self.options.clone() });
        let (mut epoch, mut sequences) = (of(Some(1))?, 0);
        while epoch.peek(context)?.is_some() {
            epoch.state.taken += 1;
            sequences += 1;
        }
        let first = if sequences == 0 { 0 } else { of(None)?.take(context)?.len() };
        Ok((sequences, first))
    }

    /// Returns the documents or rows that the next `windows` windows read, at this context length.
    ///
    /// # Errors
    /// As [`Batcher::next_window`].
    pub fn documents_ahead(&self, windows: u64, context: usize) -> Result<BTreeSet<u32>> {
        let (mut ahead, mut documents) = (self.ahead(), BTreeSet::new());
        for _ in 0..windows {
            let spans = ahead.take(context)?;
            if spans.is_empty() || documents.len() == self.tokens.documents() {
                break;
            }
            documents.extend(spans.iter().map(|span| span.document));
        }
        Ok(documents)
    }

    /// Returns a copy that advances independently of this one.
    fn ahead(&self) -> Batcher {
        let (tokens, options, state) = (self.tokens.clone(), self.options.clone(), self.state.clone());
        Batcher { tokens, options, state, spans: self.spans.clone() }
    }

    /// Returns the spans of the next window; empty after the last epoch.
    fn take(&mut self, context: usize) -> Result<Vec<DocumentSpan>> {
        self.take_of(context, self.options.batch)
    }

    fn take_of(&mut self, context: usize, size: BatchSize) -> Result<Vec<DocumentSpan>> {
        let (mut spans, mut positions) = (Vec::new(), 0);
        loop {
            // If the number of epochs is limited, a window never holds rows of two epochs.
            if self.options.epochs.is_some() && !spans.is_empty() && self.epoch_is_read() {
                break;
            }
            let Some(span) = self.peek(context)? else { break };
            if !size.takes(spans.len(), positions, span.targets()) {
                break;
            }
            self.state.taken += 1;
            positions += span.targets();
            spans.push(span);
        }
        self.state.sequences += spans.len() as u64;
        self.state.positions += positions as u64;
        Ok(spans)
    }

    /// Returns the next span, beginning a new epoch if necessary; `None` after the last epoch.
    fn peek(&mut self, context: usize) -> Result<Option<DocumentSpan>> {
        if context == 0 {
            return Err(DataError::Option("the context length must be at least 1".into()));
        }
        if self.state.context != context {
            if self.state.taken > 0 {
                if self.options.epochs.is_some() {
                    let why = "the context length cannot change in the middle of an epoch if the run's length is given in epochs; give \
                               `steps`";
                    return Err(DataError::Option(why.into()));
                }
                (self.state.epoch, self.state.taken) = (self.state.epoch + 1, 0);
            }
            self.state.context = context;
            self.spans = self.epoch_spans();
        }
        if self.epoch_is_read() {
            if self.is_last_epoch() {
                return Ok(None);
            }
            (self.state.epoch, self.state.taken) = (self.state.epoch + 1, 0);
            self.spans = self.epoch_spans();
        }
        Ok(self.spans.get(self.state.taken as usize).copied())
    }

    fn epoch_is_read(&self) -> bool {
        self.state.taken >= self.spans.len() as u64
    }

    fn is_last_epoch(&self) -> bool {
        self.options.epochs.is_some_and(|epochs| self.state.epoch + 1 >= epochs)
    }

    /// Whether the last epoch has been read to its end.
    pub fn has_ended(&self) -> bool {
        self.state.context > 0 && self.epoch_is_read() && self.is_last_epoch()
    }

    /// Makes the number of epochs practically unlimited. A window still ends where an epoch ends, as with a limit.
    pub fn never_end(&mut self) {
        self.options.epochs = self.options.epochs.map(|_| u64::MAX);
    }

    fn epoch_spans(&self) -> Vec<DocumentSpan> {
        if self.state.context == 0 {
            return Vec::new();
        }
        let prefix = self.options.prefix.is_some();
        self.tokens.epoch(self.state.context, prefix, self.options.seed, self.state.epoch)
    }
}

/// Returns held-out data as packed batches; see [`eval_sequences`].
pub fn eval_batches(
    tokens: &dyn Examples,
    context: usize,
    prefix: Option<u32>,
    batch_tokens: usize,
    most_tokens: Option<u64>,
) -> impl Iterator<Item = Result<PackedBatch>> {
    eval_sequences(tokens, context, prefix, batch_tokens, most_tokens).map(|sequences| pack(&sequences))
}

/// Returns held-out data in batches of at most `batch_tokens` positions, in the data's own order and cut the same way
/// every time. With `most_tokens`, about that many positions are read, from all over the data.
pub fn eval_sequences(
    tokens: &dyn Examples,
    context: usize,
    prefix: Option<u32>,
    batch_tokens: usize,
    most_tokens: Option<u64>,
) -> impl Iterator<Item = Vec<Sequence>> {
    let read = eval_spans(tokens, context, prefix.is_some(), most_tokens);
    let mut waiting: VecDeque<(DocumentSpan, u64)> = read.into_iter().zip(0..).collect();
    std::iter::from_fn(move || {
        let (mut sequences, mut positions): (Vec<Sequence>, usize) = (Vec::new(), 0);
        while let Some((span, group)) = waiting.front() {
            if !BatchSize::Tokens(batch_tokens).takes(sequences.len(), positions, span.targets()) {
                break;
            }
            positions += span.targets();
            sequences.extend(tokens.sequences(*span, prefix, *group));
            waiting.pop_front();
        }
        (!sequences.is_empty()).then_some(sequences)
    })
}

/// Returns the spans that [`eval_sequences`] reads, in order. `prefix`: a token precedes every text.
pub fn eval_spans(tokens: &dyn Examples, context: usize, prefix: bool, most_tokens: Option<u64>) -> Vec<DocumentSpan> {
    let all = tokens.in_order(context, prefix);
    let kept = most_tokens
        .map_or(all.len(), |most| (most as usize / tokens.usual_length(context).max(1)).clamp(1, all.len().max(1)));
    tokens.some(all, kept)
}
