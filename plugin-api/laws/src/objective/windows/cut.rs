//! A part of a window, for the search for the smallest one that breaks a law.

use super::sequences;
use plugin_api::{Result, batch::Batch};

/// The kept part of a window: sequences by their number, and the last tokens of each.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::objective) struct Cut {
    sequences: Vec<usize>,
    lengths: Vec<usize>,
}

impl Cut {
    pub(in crate::objective) fn whole(window: &Batch<'_>) -> Result<Self> {
        let lengths: Vec<usize> = window.offsets()?.windows(2).map(|w| w[1] - w[0]).collect();
        Ok(Self { sequences: (0..lengths.len()).collect(), lengths })
    }

    /// The number of sequences kept.
    pub(in crate::objective) fn sequences(&self) -> usize {
        self.sequences.len()
    }

    /// Whether no sequence is kept.
    pub(in crate::objective) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// The number of tokens kept of a sequence.
    pub(in crate::objective) fn length(&self, sequence: usize) -> usize {
        self.lengths[sequence]
    }

    /// The part of `window`.
    pub(in crate::objective) fn of(&self, window: &Batch<'_>) -> Result<Batch<'static>> {
        sequences::last_tokens(&sequences::select(window, &self.sequences)?, &self.lengths)
    }

    pub(in crate::objective) fn without(&self, unit: &[usize]) -> Self {
        let kept: Vec<usize> = (0..self.sequences.len()).filter(|i| !unit.contains(&self.sequences[*i])).collect();
        Self {
            sequences: kept.iter().map(|i| self.sequences[*i]).collect(),
            lengths: kept.iter().map(|i| self.lengths[*i]).collect(),
        }
    }

    pub(in crate::objective) fn shorter(&self, sequence: usize) -> Self {
        let mut lengths = self.lengths.clone();
        lengths[sequence] -= 1;
        Self { lengths, ..self.clone() }
    }
}
