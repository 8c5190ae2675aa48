//! Sequences laid end to end, without padding. Targets and masks are shifted here, once, and nowhere else.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{DataError, Result};

/// One sequence before the shift: the tokens as the model reads them.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// L token ids, L >= 2.
    pub ids: Vec<u32>,
    /// Whether each token, as a target, counts in the loss; L of them. The first is never a target.
    pub supervised: Vec<bool>,
    /// Numbers of the row, by name: margins, labels, scores.
    pub columns: BTreeMap<String, f64>,
    /// The row's number in its data set.
    pub row: u64,
}

impl Sequence {
    /// How many positions the model computes: one less than there are tokens.
    pub fn positions(&self) -> usize {
        self.ids.len().saturating_sub(1)
    }

    /// How many targets count in the loss.
    pub fn supervised_targets(&self) -> usize {
        self.supervised.iter().skip(1).filter(|&&counts| counts).count()
    }
}

/// What one optimizer step sees: the unit that losses are normalised over, however it is cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    sequences: Vec<Sequence>,
    supervised: usize,
}

impl Window {
    /// A window of `sequences`.
    ///
    /// # Errors
    /// Nothing in it is supervised, so that a mean over supervised tokens would be 0/0.
    pub fn new(sequences: Vec<Sequence>) -> Result<Window> {
        let supervised = sequences.iter().map(Sequence::supervised_targets).sum();
        if supervised == 0 {
            let tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
            return Err(DataError::NothingSupervised { what: "an optimizer step".into(), tokens });
        }
        Ok(Window { sequences, supervised })
    }

    /// The sequences, in order.
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// Supervised targets of the whole window: what divides a token loss, whichever micro-batch a token is in.
    pub fn supervised(&self) -> usize {
        self.supervised
    }

    /// Positions of the whole window.
    pub fn positions(&self) -> usize {
        self.sequences.iter().map(Sequence::positions).sum()
    }

    /// The window in micro-batches of at most `most` positions; see [`micro_batches`].
    pub fn micro_batches(&self, most: usize) -> impl Iterator<Item = Result<PackedBatch>> {
        micro_batches(&self.sequences, most).into_iter().map(|range| pack(&self.sequences[range]))
    }
}

/// S sequences of N positions in all. Position i of a sequence reads token i and predicts token i + 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackedBatch {
    /// \[N\] the token read at each position.
    pub tokens: Vec<i32>,
    /// \[N\] the token to predict at each position.
    pub targets: Vec<i32>,
    /// \[N\] 1 where the target counts in the loss, else 0: the mask of the token predicted, not of the token read.
    pub mask: Vec<f64>,
    /// \[N\] the position within its sequence, from 0.
    pub positions: Vec<i32>,
    /// \[S + 1\] where each sequence begins, and N at the end (cu_seqlens).
    pub offsets: Vec<i32>,
    /// The longest sequence, in positions.
    pub max_len: usize,
    /// \[S\] each sequence's row in its data set.
    pub rows: Vec<u64>,
    /// \[S\] each: the rows' numbers by name.
    pub columns: BTreeMap<String, Vec<f64>>,
}

impl PackedBatch {
    /// N.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no position at all.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// S.
    pub fn sequences(&self) -> usize {
        self.rows.len()
    }

    /// How many targets count in the loss.
    pub fn supervised(&self) -> usize {
        self.mask.iter().filter(|&&mask| mask != 0.0).count()
    }
}

/// Lays `sequences` end to end and shifts: tokens `[..L-1]`, targets and mask `[1..]`.
///
/// # Errors
/// A sequence with fewer than two tokens, with as many flags as it has not tokens, or with other columns than the first.
pub fn pack(sequences: &[Sequence]) -> Result<PackedBatch> {
    let mut batch = PackedBatch { offsets: vec![0], ..Default::default() };
    for sequence in sequences {
        check(sequence, sequences.first().unwrap_or(sequence))?;
        let length = sequence.positions();
        batch.tokens.extend(sequence.ids.iter().take(length).map(|&id| id as i32));
        batch.targets.extend(sequence.ids.iter().skip(1).map(|&id| id as i32));
        batch.mask.extend(sequence.supervised.iter().skip(1).map(|&counts| f64::from(u8::from(counts))));
        batch.positions.extend((0..length).map(|position| position as i32));
        batch.offsets.push(batch.tokens.len() as i32);
        batch.max_len = batch.max_len.max(length);
        batch.rows.push(sequence.row);
        for (name, &value) in &sequence.columns {
            batch.columns.entry(name.clone()).or_default().push(value);
        }
    }
    Ok(batch)
}

fn check(sequence: &Sequence, first: &Sequence) -> Result<()> {
    let row = sequence.row;
    if sequence.ids.len() < 2 {
        return Err(DataError::NoTarget { row, tokens: sequence.ids.len() });
    }
    if sequence.supervised.len() != sequence.ids.len() {
        let (flags, tokens) = (sequence.supervised.len(), sequence.ids.len());
        return Err(DataError::Row { row, what: format!("{flags} supervision flags for {tokens} tokens") });
    }
    if !sequence.columns.keys().eq(first.columns.keys()) {
        let names = |sequence: &Sequence| sequence.columns.keys().cloned().collect::<Vec<_>>().join(", ");
        let (here, there) = (names(sequence), names(first));
        return Err(DataError::Row { row, what: format!("has the columns [{here}], row {} has [{there}]", first.row) });
    }
    Ok(())
}

/// Cuts `sequences` into runs of at most `most` positions: whole sequences, in order, as many as fit. A longer sequence is
/// a run of its own.
pub fn micro_batches(sequences: &[Sequence], most: usize) -> Vec<Range<usize>> {
    let (mut runs, mut start, mut positions) = (Vec::new(), 0, 0);
    for (index, sequence) in sequences.iter().enumerate() {
        if index > start && positions + sequence.positions() > most {
            runs.push(start..index);
            (start, positions) = (index, 0);
        }
        positions += sequence.positions();
    }
    if start < sequences.len() {
        runs.push(start..sequences.len());
    }
    runs
}
