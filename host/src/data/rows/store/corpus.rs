//! The rows of a data set on both sides of the split.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Rows;
use crate::data::error::Result;
use crate::data::rows::counts::MixedSource;
use crate::data::rows::kind::RowKind;
use crate::data::rows::read::formats::Format;
use crate::data::rows::row::Row;
use crate::data::source::Source;

/// Rows to train on and held-out rows; no question is on both sides.
#[derive(Clone, Debug, Default)]
pub struct RowCorpus {
    /// Its name in messages.
    pub name: String,
    /// The kind of its rows.
    pub kind: RowKind,
    /// Rows to train on.
    pub train: Arc<Rows>,
    /// Rows to evaluate on; empty if none were requested.
    pub held_out: Arc<Rows>,
    /// Number of training rows removed because their prompt is held out.
    pub leaks: usize,
    /// The files that they came from.
    pub sources: Vec<Source>,
    /// How many rows were read in which format; empty for generated rows.
    pub formats: BTreeMap<Format, usize>,
    /// The sources of a mixture, in the order of the rows' numbers of sources; empty if there is one source.
    pub mix: Vec<MixedSource>,
    /// Rows left out because all their answers have the same score.
    pub same_score: usize,
}

impl RowCorpus {
    /// Rows that are all on the training side.
    ///
    /// # Errors
    /// A full disk.
    pub fn of(name: String, kind: RowKind, rows: impl IntoIterator<Item = Row>) -> Result<RowCorpus> {
        Ok(RowCorpus { name, kind, train: Arc::new(Rows::of(rows)?), ..RowCorpus::default() })
    }
}
