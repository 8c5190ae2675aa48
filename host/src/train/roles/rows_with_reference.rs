//! Rows with the log-probabilities that a frozen reference gives them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use plugin_api::batch::names;

use crate::data::{Examples, Sequence, order::DocumentSpan, rows::RowText};

/// The data as the experiment's models read it: with the last token of each sequence if an objective reads there, and with the
/// reference's log-probabilities.
#[derive(Debug)]
pub struct RowsWithReference {
    inner: Arc<dyn Examples>,
    reads_last: bool,
    /// For each scored row the numbers of each of its sequences, one per position; set once the reference has scored them.
    reference: OnceLock<BTreeMap<u32, Vec<Vec<f64>>>>,
    /// Whether rows that were not scored carry zeros: during the memory check, which may use rows that no step reads.
    uses_zeros: AtomicBool,
}

impl Examples for RowsWithReference {
    fn key(&self) -> String {
        self.inner.key()
    }

    fn documents(&self) -> usize {
        self.inner.documents()
    }

    fn tokens(&self) -> u64 {
        self.inner.tokens()
    }

    fn epoch(&self, context: usize, prefix: bool, seed: u64, epoch: u64) -> Vec<DocumentSpan> {
        self.inner.epoch(context, prefix, seed, epoch)
    }

    fn in_order(&self, context: usize, prefix: bool) -> Vec<DocumentSpan> {
        self.inner.in_order(context, prefix)
    }

    fn sequences(&self, span: DocumentSpan, prefix: Option<u32>, group: u64) -> Vec<Sequence> {
        let mut sequences = self.inner.sequences(span, prefix, group);
        let scored = self.reference.get().and_then(|rows| rows.get(&span.document));
        for (index, sequence) in sequences.iter_mut().enumerate() {
            sequence.reads_last = self.reads_last;
            let own = scored.and_then(|scored| scored.get(index)).cloned();
            let zeros = || self.uses_zeros.load(Ordering::Relaxed).then(|| vec![0.0; sequence.positions()]);
            if let Some(values) = own.or_else(zeros) {
                sequence.per_token.insert(names::REFERENCE_LOGP.to_owned(), values);
            }
        }
        sequences
    }

    fn usual_length(&self, context: usize) -> usize {
        self.inner.usual_length(context)
    }

    fn some(&self, all: Vec<DocumentSpan>, kept: usize) -> Vec<DocumentSpan> {
        self.inner.some(all, kept)
    }

    fn row_text(&self, row: u64) -> Option<RowText> {
        self.inner.row_text(row)
    }
}

impl RowsWithReference {
    /// Wraps data that the reference has not scored yet.
    pub fn new(inner: Arc<dyn Examples>, reads_last: bool) -> Arc<RowsWithReference> {
        let (reference, uses_zeros) = (OnceLock::new(), AtomicBool::new(false));
        Arc::new(RowsWithReference { inner, reads_last, reference, uses_zeros })
    }

    /// Sets the reference's numbers: for each row those of each of its sequences, one per position. Only the first call counts.
    pub fn set_reference(&self, numbers: BTreeMap<u32, Vec<Vec<f64>>>) {
        _ = self.reference.set(numbers);
    }

    /// Sets whether rows that were not scored carry zeros. No step reads such a row, but the memory check may.
    pub fn use_zeros(&self, zeros: bool) {
        self.uses_zeros.store(zeros, Ordering::Relaxed);
    }
}
