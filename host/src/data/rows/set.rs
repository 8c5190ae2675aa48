//! Tokenised rows: one sequence for each row, or two for a pair, the chosen answer first.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use plugin_api::batch::names;
use sha2::{Digest, Sha256};

use super::kind::{LABEL, RowKind};
use super::row::Row;
use super::store::Rows;
use super::store::log::Log;
use super::store::pieces::Pieces;
use super::text::{RowText, number, numbers};
use crate::data::batches::mixture;
use crate::data::batches::order::{self, DocumentSpan, shuffled};
use crate::data::batches::pack::Sequence;
use crate::data::cache::hex;
use crate::data::error::{DataError, Result};
use crate::data::examples::Examples;

/// A text as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// The ids.
    pub ids: Vec<u32>,
    /// For each token, whether it counts in the loss.
    pub supervised: Vec<bool>,
    /// For each token, whether it holds the last character of a segment; empty if there are no segments.
    pub segment_ends: Vec<bool>,
}

impl Tokens {
    /// The number of tokens before the first supervised one.
    pub fn prompt(&self) -> usize {
        self.supervised.iter().position(|s| *s).unwrap_or(self.ids.len())
    }

    /// Whether it is usable in a row of this kind. A prompt must have a token. A completion must have a
    /// supervised token that is not the first. Answers of pairs and labelled answers must have a supervised token,
    /// and a token before the first one.
    pub fn serves(&self, kind: RowKind) -> bool {
        match kind {
            RowKind::Prompt => !self.ids.is_empty(),
            RowKind::PromptCompletion => self.supervised.iter().skip(1).any(|s| *s),
            RowKind::Preference | RowKind::Unpaired => (1..self.ids.len()).contains(&self.prompt()),
        }
    }

    /// Whether a supervised token ends a segment.
    pub fn has_segment(&self) -> bool {
        self.segment_ends.iter().zip(&self.supervised).skip(1).any(|(end, supervised)| *end && *supervised)
    }

    /// Keeps the first `length` tokens.
    pub fn truncate(&mut self, length: usize) {
        self.ids.truncate(length);
        self.supervised.truncate(length);
        self.segment_ends.truncate(length);
    }
}

/// The columns of all rows that reach objectives.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// Those of numbers.
    pub numbers: &'a [String],
    /// Those of lists of numbers.
    pub lists: &'a [String],
}

/// Tokenised rows of one side of the split. What grows with the length of rows is on disk if it is much; see [`Log`].
#[derive(Debug, Default)]
pub struct RowSet {
    kind: RowKind,
    /// The ids of all sequences, four bytes each.
    ids: Log,
    /// For each token, one byte of [`SUPERVISED`] and [`SEGMENT_END`].
    flags: Log,
    /// Whether there are segments.
    in_segments: bool,
    /// Where each sequence ends.
    ends: Vec<u64>,
    /// Each row's index in its data set, counting dropped rows, and whether the end of its answer is missing.
    rows: Vec<(u32, bool)>,
    /// Each row's label; only for unpaired rows.
    labels: Vec<f64>,
    columns: BTreeMap<String, Vec<f64>>,
    /// Eight bytes for each number.
    lists: BTreeMap<String, Pieces>,
    /// All rows of the data set, for their texts.
    texts: Arc<Rows>,
    /// Each row's other prompt, of the role `context`, four bytes for each id; empty if there is none.
    context_prompts: Pieces,
    /// The weights of the rows' sources; empty if they are not weighted.
    weights: Vec<f64>,
    key: String,
}

/// The token counts in the loss.
const SUPERVISED: u8 = 1;
/// A segment ends in the token.
const SEGMENT_END: u8 = 2;
/// Tokens that are hashed at once.
const HASHED: u64 = 1 << 18;

impl RowSet {
    /// Returns an empty set of rows of this kind, which come from `texts`.
    pub fn new(kind: RowKind, texts: Arc<Rows>) -> RowSet {
        RowSet { kind, texts, ..RowSet::default() }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds row number `row_number` with its texts, as many as its kind has, and its numbers and lists in `columns`.
    /// `is_cut`: the end of its answer is missing.
    ///
    /// # Errors
    /// A full disk.
    pub fn push(
        &mut self,
        row_number: usize,
        texts: Vec<Tokens>,
        row: &Row,
        columns: Columns<'_>,
        is_cut: bool,
    ) -> Result<()> {
        for tokens in texts {
            self.in_segments |= !tokens.segment_ends.is_empty();
            self.ids.append(bytemuck::cast_slice(&tokens.ids))?;
            let ends = tokens.segment_ends.iter().copied().chain(std::iter::repeat(false));
            let flag =
                |(learned, end): (&bool, bool)| (u8::from(*learned) * SUPERVISED) | (u8::from(end) * SEGMENT_END);
            self.flags.append(&tokens.supervised.iter().zip(ends).map(flag).collect::<Vec<u8>>())?;
            self.ends.push(self.flags.end());
        }
        self.rows.push((row_number as u32, is_cut));
        let value = |name: &str| row.columns.get(name).and_then(number).unwrap_or(f64::NAN);
        if self.kind == RowKind::Unpaired {
            self.labels.push(value(LABEL));
        }
        for name in columns.numbers {
            self.columns.entry(name.clone()).or_default().push(value(name));
        }
        for name in columns.lists {
            let list = row.columns.get(name).and_then(numbers).unwrap_or_default();
            self.lists.entry(name.clone()).or_default().push(bytemuck::cast_slice(&list))?;
        }
        Ok(())
    }

    /// Adds the other prompt of the row that was added last.
    ///
    /// # Errors
    /// A full disk.
    pub fn push_context(&mut self, prompt: Option<Vec<u32>>) -> Result<()> {
        prompt.map_or(Ok(()), |prompt| self.context_prompts.push(bytemuck::cast_slice(&prompt)))
    }

    /// Call after adding the last row: computes the set's key from its content.
    ///
    /// # Errors
    /// A disk that cannot be read.
    pub fn close(&mut self) -> Result<()> {
        let mut hash = Sha256::new();
        hash.update(b"rows 1");
        for end in &self.ends {
            hash.update(end.to_le_bytes());
        }
        for at in (0..self.ids.end()).step_by(HASHED as usize) {
            hash.update(self.ids.read(at, HASHED as usize)?);
        }
        let flags = |hash: &mut Sha256, flag: u8| -> Result<()> {
            for at in (0..self.flags.end()).step_by(HASHED as usize) {
                let flags = self.flags.read(at, HASHED as usize)?;
                hash.update(flags.iter().map(|own| u8::from(own & flag != 0)).collect::<Vec<u8>>());
            }
            Ok(())
        };
        flags(&mut hash, SUPERVISED)?;
        for (name, values) in &self.columns {
            hash.update(name);
            hash.update(bytemuck::cast_slice::<f64, u8>(values));
        }
        for (name, lists) in &self.lists {
            hash.update(name);
            for row in 0..lists.count() {
                let list = lists.get(row)?;
                hash.update((list.len() as u64 / 8).to_le_bytes());
                hash.update(list);
            }
        }
        if self.in_segments {
            flags(&mut hash, SEGMENT_END)?;
        }
        // Rewards read the text of a prompt's row.
        if self.kind == RowKind::Prompt {
            for (row, _) in &self.rows {
                hash.update(self.texts.get(*row as usize)?.map(|row| row.text().hashed()).unwrap_or_default());
            }
        }
        for row in 0..self.context_prompts.count() {
            let prompt = self.context_prompts.get(row)?;
            hash.update((prompt.len() as u64 / 4).to_le_bytes());
            hash.update(prompt);
        }
        self.key = hex(&hash.finalize());
        Ok(())
    }

    /// Weights the sources, so that an epoch draws rows of each in proportion to its weight.
    ///
    /// # Errors
    /// A source of which no row is left, or whose weight is too small for one row of an epoch.
    pub fn mix(&mut self, weights: Vec<f64>) -> Result<()> {
        self.weights = weights;
        let sizes = self.of_sources();
        if let Some(number) = sizes.iter().position(|rows| *rows == 0) {
            return Err(DataError::Option(format!(
                "no row of data.mix.{number} is left to train on, so that it cannot have a weight; remove it, or see why its rows \
                 are dropped: telos data inspect FILE"
            )));
        }
        let quotas = mixture::quotas(&sizes, &self.weights);
        if let Some((number, weight)) =
            self.weights.iter().enumerate().find(|(number, _)| quotas.get(*number).is_none_or(|rows| *rows == 0))
        {
            let (rows, sum) = (sizes.iter().sum::<usize>(), self.weights.iter().sum::<f64>());
            return Err(DataError::Option(format!(
                "data.mix.{number}.weight = {weight} is so small that none of the {rows} rows of an epoch would be of this source: \
                 raise it to {:.2e} or more, or remove the source",
                1.5 * sum / rows as f64
            )));
        }
        Ok(())
    }

    /// The number of rows of each source; empty if they are not weighted.
    pub fn of_sources(&self) -> Vec<usize> {
        let mut rows = vec![0; self.weights.len()];
        for (row, _) in &self.rows {
            if let Some(own) = rows.get_mut(usize::from(self.texts.source(*row as usize))) {
                *own += 1;
            }
        }
        rows
    }

    /// The number of sequences per row.
    fn width(&self) -> usize {
        self.kind.texts().len()
    }

    /// The sequences of row `index`, counted without the dropped rows.
    fn sequences_of(&self, index: usize) -> Range<usize> {
        index * self.width()..(index + 1) * self.width()
    }

    /// The tokens of sequence `index`.
    fn bounds(&self, index: usize) -> Range<u64> {
        let end_of = |index: usize| self.ends.get(index).copied().unwrap_or_default();
        index.checked_sub(1).map_or(0, end_of)..end_of(index)
    }

    /// The number of tokens of sequence `index`.
    fn length(&self, index: usize) -> usize {
        let bounds = self.bounds(index);
        bounds.end.saturating_sub(bounds.start) as usize
    }

    /// The ids of sequence `index`, and the flags of its tokens.
    fn tokens_of(&self, index: usize) -> (Vec<u32>, Vec<u8>) {
        let (begin, length) = (self.bounds(index).start, self.length(index));
        let ids = ids_of(&self.ids.read_again(4 * begin, 4 * length));
        (ids, self.flags.read_again(begin, length))
    }

    /// Where the segments end in tokens with these flags, under the name that objectives use; `None` if there are no segments.
    fn ends_of(&self, flags: &[u8]) -> Option<(String, Vec<f64>)> {
        let ends = flags.iter().map(|flag| f64::from(u8::from(flag & SEGMENT_END != 0))).collect();
        self.in_segments.then(|| (names::SEGMENT_END.to_owned(), ends))
    }

    /// The numbers of a sequence of row `index`: its group and side.
    fn numbers(&self, index: usize, chosen: bool, group: u64) -> BTreeMap<String, f64> {
        let own = match self.kind {
            RowKind::Preference => vec![(names::GROUP, group as f64), (names::SIDE, f64::from(u8::from(chosen)))],
            RowKind::Unpaired => self.labels.get(index).map(|label| (names::SIDE, *label)).into_iter().collect(),
            RowKind::PromptCompletion | RowKind::Prompt => Vec::new(),
        };
        own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn ids_of(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|id| u32::from_ne_bytes(*id)).collect()
}

impl Examples for RowSet {
    fn key(&self) -> String {
        self.key.clone()
    }

    fn documents(&self) -> usize {
        self.rows.len()
    }

    fn tokens(&self) -> u64 {
        self.flags.end()
    }

    fn epoch(&self, context: usize, prefix: bool, seed: u64, epoch: u64) -> Vec<DocumentSpan> {
        let spans = self.in_order(context, prefix);
        if self.weights.is_empty() {
            return shuffled(spans, seed, epoch, context);
        }
        let mut sources = vec![Vec::new(); self.weights.len()];
        for span in spans {
            let row = self.rows.get(span.document as usize).map_or(0, |(row, _)| *row as usize);
            if let Some(own) = sources.get_mut(usize::from(self.texts.source(row))) {
                own.push(span);
            }
        }
        mixture::epoch(&sources, &self.weights, seed, epoch)
    }

    /// Rows are whole: they were truncated when they were tokenised. A pair's span has the length of both its
    /// sequences together.
    fn in_order(&self, _context: usize, _prefix: bool) -> Vec<DocumentSpan> {
        let positions = |row: usize| self.sequences_of(row).map(|s| self.length(s).saturating_sub(1)).sum::<usize>();
        let whole = |row: usize| DocumentSpan { document: row as u32, begin: 1, end: 1 + positions(row) as u32 };
        (0..self.rows.len()).map(whole).collect()
    }

    /// The prefix is already among the row's tokens.
    fn sequences(&self, span: DocumentSpan, _prefix: Option<u32>, group: u64) -> Vec<Sequence> {
        let row = span.document as usize;
        let columns: BTreeMap<String, f64> =
            self.columns.iter().filter_map(|(name, values)| Some((name.clone(), *values.get(row)?))).collect();
        let list = |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(|number| f64::from_ne_bytes(*number)).collect();
        let lists: BTreeMap<String, Vec<f64>> =
            self.lists.iter().filter_map(|(name, lists)| Some((name.clone(), list(lists.again(row)?)))).collect();
        let context_prompt = self.context_prompts.again(row).map(|bytes| ids_of(&bytes));
        let sequence = |(place, sequence): (usize, usize)| {
            let (ids, flags) = self.tokens_of(sequence);
            Sequence {
                ids,
                supervised: flags.iter().map(|flag| flag & SUPERVISED != 0).collect(),
                columns: columns.clone(),
                lists: lists.clone(),
                of_tokens: self.ends_of(&flags).into_iter().collect(),
                row: self.rows.get(row).map_or(0, |(row, _)| u64::from(*row)),
                per_sequence: self.numbers(row, place == 0, group),
                context_prompt: context_prompt.clone(),
                ..Default::default()
            }
        };
        self.sequences_of(row).enumerate().map(sequence).collect()
    }

    fn usual_length(&self, context: usize) -> usize {
        (self.flags.end() as usize - self.ends.len()).checked_div(self.rows.len()).unwrap_or(context).max(1)
    }

    /// At random: rows are often in a regular order (task after task), and every n-th row would then be of one
    /// kind.
    fn some(&self, all: Vec<DocumentSpan>, kept: usize) -> Vec<DocumentSpan> {
        order::some(all, kept)
    }

    fn row_text(&self, row: u64) -> Option<RowText> {
        let place = self.rows.binary_search_by_key(&row, |(row, _)| u64::from(*row)).ok()?;
        let (_, is_cut) = self.rows.get(place)?;
        Some(RowText { is_cut: *is_cut, ..self.texts.again(row as usize)?.text() })
    }
}
