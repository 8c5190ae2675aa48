//! Tokenised rows: one sequence for each row, or two for a pair, the chosen answer first.

use std::collections::BTreeMap;
use std::ops::Range;

use plugin_api::batch::names;
use sha2::{Digest, Sha256};

use super::kind::{LABEL, RowKind};
use super::row::Row;
use super::text::{RowText, number, numbers};
use crate::data::batches::order::{self, DocumentSpan, shuffled};
use crate::data::batches::pack::Sequence;
use crate::data::cache::hex;
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

/// Tokenised rows of one side of the split.
#[derive(Debug, Default)]
pub struct RowSet {
    kind: RowKind,
    ids: Vec<u32>,
    supervised: Vec<bool>,
    /// For each token, whether a segment ends in it; empty if there are no segments.
    segment_ends: Vec<bool>,
    /// Where each sequence ends.
    ends: Vec<usize>,
    /// Each row's index in its data set, counting dropped rows.
    rows: Vec<u64>,
    /// Each row's label; only for unpaired rows.
    labels: Vec<f64>,
    columns: BTreeMap<String, Vec<f64>>,
    lists: BTreeMap<String, Vec<Vec<f64>>>,
    texts: Vec<RowText>,
    /// Each row's other prompt, of the role `context`; empty if there is none.
    context_prompts: Vec<Vec<u32>>,
    key: String,
}

impl RowSet {
    /// Returns an empty set of rows of this kind.
    pub fn new(kind: RowKind) -> RowSet {
        RowSet { kind, ..RowSet::default() }
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
    pub fn push(&mut self, row_number: u64, texts: Vec<Tokens>, row: &Row, columns: Columns<'_>, is_cut: bool) {
        for tokens in texts {
            self.ids.extend(tokens.ids);
            self.supervised.extend(tokens.supervised);
            self.segment_ends.extend(tokens.segment_ends);
            self.ends.push(self.ids.len());
        }
        self.rows.push(row_number);
        self.texts.push(RowText { is_cut, ..row.text() });
        let value = |name: &str| row.columns.get(name).and_then(number).unwrap_or(f64::NAN);
        if self.kind == RowKind::Unpaired {
            self.labels.push(value(LABEL));
        }
        for name in columns.numbers {
            self.columns.entry(name.clone()).or_default().push(value(name));
        }
        for name in columns.lists {
            let list = row.columns.get(name).and_then(numbers).unwrap_or_default();
            self.lists.entry(name.clone()).or_default().push(list);
        }
    }

    /// Adds the other prompt of the row that was added last.
    pub fn push_context(&mut self, prompt: Option<Vec<u32>>) {
        self.context_prompts.extend(prompt);
    }

    /// Call after adding the last row: computes the set's key from its content.
    pub fn close(&mut self) {
        let mut hash = Sha256::new();
        hash.update(b"rows 1");
        for end in &self.ends {
            hash.update((*end as u64).to_le_bytes());
        }
        hash.update(bytemuck::cast_slice::<u32, u8>(&self.ids));
        self.supervised.iter().for_each(|s| hash.update([u8::from(*s)]));
        for (name, values) in &self.columns {
            hash.update(name);
            hash.update(bytemuck::cast_slice::<f64, u8>(values));
        }
        for (name, lists) in &self.lists {
            hash.update(name);
            for list in lists {
                hash.update((list.len() as u64).to_le_bytes());
                hash.update(bytemuck::cast_slice::<f64, u8>(list));
            }
        }
        self.segment_ends.iter().for_each(|end| hash.update([u8::from(*end)]));
        // Rewards read the text of a prompt's row.
        if self.kind == RowKind::Prompt {
            self.texts.iter().for_each(|text| hash.update(text.hashed()));
        }
        for prompt in &self.context_prompts {
            hash.update((prompt.len() as u64).to_le_bytes());
            hash.update(bytemuck::cast_slice::<u32, u8>(prompt));
        }
        self.key = hex(&hash.finalize());
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
    fn bounds(&self, index: usize) -> Range<usize> {
        let end_of = |index: usize| self.ends.get(index).copied().unwrap_or_default();
        index.checked_sub(1).map_or(0, end_of)..end_of(index)
    }

    /// Where the segments of sequence `index` end, under the name that objectives use; `None` if there are no segments.
    fn ends_of(&self, index: usize) -> Option<(String, Vec<f64>)> {
        let ends = self.segment_ends.get(self.bounds(index))?;
        Some((names::SEGMENT_END.to_owned(), ends.iter().map(|end| f64::from(u8::from(*end))).collect()))
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

impl Examples for RowSet {
    fn key(&self) -> String {
        self.key.clone()
    }

    fn documents(&self) -> usize {
        self.rows.len()
    }

    fn tokens(&self) -> u64 {
        self.ids.len() as u64
    }

    fn epoch(&self, context: usize, prefix: bool, seed: u64, epoch: u64) -> Vec<DocumentSpan> {
        shuffled(self.in_order(context, prefix), seed, epoch, context)
    }

    /// Rows are whole: they were truncated when they were tokenised. A pair's span has the length of both its
    /// sequences together.
    fn in_order(&self, _context: usize, _prefix: bool) -> Vec<DocumentSpan> {
        let positions =
            |row: usize| self.sequences_of(row).map(|s| self.bounds(s).len().saturating_sub(1)).sum::<usize>();
        let whole = |row: usize| DocumentSpan { document: row as u32, begin: 1, end: 1 + positions(row) as u32 };
        (0..self.rows.len()).map(whole).collect()
    }

    /// The prefix is already among the row's tokens.
    fn sequences(&self, span: DocumentSpan, _prefix: Option<u32>, group: u64) -> Vec<Sequence> {
        let row = span.document as usize;
        let columns: BTreeMap<String, f64> =
            self.columns.iter().filter_map(|(name, values)| Some((name.clone(), *values.get(row)?))).collect();
        let lists: BTreeMap<String, Vec<f64>> =
            self.lists.iter().filter_map(|(name, lists)| Some((name.clone(), lists.get(row)?.clone()))).collect();
        let sequence = |(place, sequence): (usize, usize)| Sequence {
            ids: self.ids[self.bounds(sequence)].to_vec(),
            supervised: self.supervised[self.bounds(sequence)].to_vec(),
            columns: columns.clone(),
            lists: lists.clone(),
            of_tokens: self.ends_of(sequence).into_iter().collect(),
            row: self.rows.get(row).copied().unwrap_or_default(),
            per_sequence: self.numbers(row, place == 0, group),
            context_prompt: self.context_prompts.get(row).cloned(),
            ..Default::default()
        };
        self.sequences_of(row).enumerate().map(sequence).collect()
    }

    fn usual_length(&self, context: usize) -> usize {
        (self.ids.len() - self.ends.len()).checked_div(self.rows.len()).unwrap_or(context).max(1)
    }

    /// At random: rows are often in a regular order (task after task), and every n-th row would then be of one
    /// kind.
    fn some(&self, all: Vec<DocumentSpan>, kept: usize) -> Vec<DocumentSpan> {
        order::some(all, kept)
    }

    fn row_text(&self, row: u64) -> Option<&RowText> {
        self.texts.get(self.rows.binary_search(&row).ok()?)
    }
}
