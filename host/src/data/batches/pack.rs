//! Sequences laid end to end, without padding. Targets and masks are shifted here, once, and nowhere else.

use std::collections::BTreeMap;
use std::ops::Range;

use plugin_api::batch::names;
use serde::{Deserialize, Serialize};

use crate::data::error::{DataError, Result};

/// One sequence before the shift: the tokens as the model reads them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// L token ids, L >= 2.
    pub ids: Vec<u32>,
    /// For each of the L tokens, whether it counts in the loss as a target. The first is never a target.
    pub supervised: Vec<bool>,
    /// Numbers of the row, by name, such as a margin, a label or a score.
    pub columns: BTreeMap<String, f64>,
    /// Lists of numbers of the row, by name, such as the labels of an answer's steps.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lists: BTreeMap<String, Vec<f64>>,
    /// The row's index in its data set.
    pub row: u64,
    /// Numbers of the sequence itself, by the names that objectives use: `group` and `side` of a pair's answers; in
    /// rollouts, what was computed for a sample, such as `reward`.
    #[serde(rename = "numbers")]
    pub per_sequence: BTreeMap<String, f64>,
    /// Numbers for each position, by the names that objectives use: statistics of a frozen model, and what
    /// `prepare` returned.
    #[serde(rename = "tokens")]
    pub per_token: BTreeMap<String, Vec<f64>>,
    /// Numbers for each of the L tokens, by the names that objectives use: where the segments of an answer end, and what
    /// `compose` returns. Packing shifts them with the targets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub of_tokens: BTreeMap<String, Vec<f64>>,
    /// Numbers per position or token of those of `per_token` and `of_tokens` that have several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub widths: BTreeMap<String, usize>,
    /// Whether the last token is read too, at a position that predicts nothing. Needed for what a model computes at
    /// the end of a sequence (a score, a last value).
    pub reads_last: bool,
    /// Tokens of the prompt behind which the role `context` reads this sequence's answer; see
    /// [`Sequence::behind_context_prompt`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_prompt: Option<Vec<u32>>,
}

impl Sequence {
    /// The index of the first token of the answer: the first supervised target. Without one, the last token.
    fn answer(&self) -> usize {
        let first = self.supervised.iter().skip(1).position(|supervised| *supervised).map(|index| index + 1);
        first.unwrap_or(self.ids.len().saturating_sub(1))
    }

    /// The answer behind the other prompt, with the same supervised targets and nothing else; `None` if it has no other prompt.
    pub fn behind_context_prompt(&self) -> Option<Sequence> {
        let (prompt, answer) = (self.context_prompt.as_ref()?, self.answer());
        Some(Sequence {
            ids: prompt.iter().chain(self.ids.get(answer..)?).copied().collect(),
            supervised: prompt.iter().map(|_| &false).chain(self.supervised.get(answer..)?).copied().collect(),
            row: self.row,
            ..Sequence::default()
        })
    }

    /// The number of positions that the largest pass over it computes: its own, or those behind the other prompt.
    pub fn extent(&self) -> usize {
        let other = self
            .context_prompt
            .as_ref()
            .map_or(0, |prompt| prompt.len() + self.ids.len().saturating_sub(1 + self.answer()));
        self.positions().max(other)
    }

    /// The number of positions that the model computes: one for each token, minus the last token if it is only
    /// predicted.
    pub fn positions(&self) -> usize {
        self.ids.len().saturating_sub(usize::from(!self.reads_last))
    }

    /// Numbers per position or token of an array.
    fn width(&self, name: &str) -> usize {
        self.widths.get(name).copied().unwrap_or(1)
    }

    /// How many targets count in the loss.
    pub fn supervised_targets(&self) -> usize {
        self.supervised.iter().skip(1).filter(|&&counts| counts).count()
    }
}

/// The sequences of one optimizer step. Losses are normalised over the whole window, however it is split into
/// micro-batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    sequences: Vec<Sequence>,
    supervised: usize,
}

impl Window {
    /// Returns a window of `sequences`.
    ///
    /// # Errors
    /// No token is supervised, so that a mean over supervised tokens would be 0/0.
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

    /// Supervised targets of the whole window: the divisor of a token loss, whichever micro-batch a token is in.
    pub fn supervised(&self) -> usize {
        self.supervised
    }

    /// Positions of the whole window.
    pub fn positions(&self) -> usize {
        self.sequences.iter().map(Sequence::positions).sum()
    }

    /// The window as micro-batches of at most `most` positions; see [`micro_batches`].
    pub fn micro_batches(&self, most: usize) -> impl Iterator<Item = Result<PackedBatch>> {
        micro_batches(&self.sequences, most).into_iter().map(|range| pack(&self.sequences[range]))
    }

    /// The window as micro-batches of at most `most` positions, which may cut groups apart; see [`micro_batches_apart`].
    pub fn micro_batches_apart(&self, most: usize) -> impl Iterator<Item = Result<PackedBatch>> {
        micro_batches_apart(&self.sequences, most).into_iter().map(|range| pack(&self.sequences[range]))
    }
}

/// Lists of one name: all their values one after the other, and how many of them each sequence has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lists {
    /// The values.
    pub values: Vec<f64>,
    /// \[S\] the number of values of each sequence.
    pub lengths: Vec<usize>,
}

impl Lists {
    /// Adds the list of one more sequence.
    pub fn push(&mut self, values: &[f64]) {
        self.values.extend(values);
        self.lengths.push(values.len());
    }

    /// The list of each sequence.
    pub fn each(&self) -> impl Iterator<Item = &[f64]> {
        let ends = self.lengths.iter().scan(0, |end, length| {
            let begin = *end;
            *end += length;
            Some(begin..*end)
        });
        ends.map(|range| self.values.get(range).unwrap_or_default())
    }
}

/// S sequences of N positions in total. Position i of a sequence reads token i and predicts token i + 1.
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
    /// \[S\] how many tokens precede each sequence's first supervised target; all that are read if nothing is supervised.
    pub prompts: Vec<i32>,
    /// The longest sequence, in positions.
    pub max_len: usize,
    /// \[S\] each sequence's row in its data set.
    pub rows: Vec<u64>,
    /// \[S\] each: numbers of the rows, by name.
    pub columns: BTreeMap<String, Vec<f64>>,
    /// One list per sequence each: [`Sequence::lists`].
    pub lists: BTreeMap<String, Lists>,
    /// \[S\] each: [`Sequence::per_sequence`].
    pub per_sequence: BTreeMap<String, Vec<f64>>,
    /// \[N\] each: [`Sequence::per_token`].
    pub per_token: BTreeMap<String, Vec<f64>>,
    /// \[S\] [`Sequence::context_prompt`]; empty if the sequences have none.
    pub context_prompts: Vec<Vec<u32>>,
    /// Numbers per position of those of `per_token` that have several.
    pub widths: BTreeMap<String, usize>,
    /// Whether each sequence's last position reads its last token and predicts nothing.
    pub reads_last: bool,
}

impl PackedBatch {
    /// N.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no positions.
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

    /// The sequences that count in normalisers and in the host's own statistics, by number: all but those that `compose` returned
    /// with `counted` 0.
    pub fn counted(&self) -> impl Iterator<Item = usize> {
        let flags = self.per_sequence.get(names::COUNTED);
        (0..self.sequences()).filter(move |s| flags.and_then(|flags| flags.get(*s)) != Some(&0.0))
    }

    /// The positions of a sequence.
    pub fn positions_of(&self, sequence: usize) -> Range<usize> {
        let end = |s: usize| self.offsets.get(s).map_or(0, |offset| *offset as usize);
        end(sequence)..end(sequence + 1)
    }

    /// How many targets count in the loss, of the sequences that count.
    pub fn counted_targets(&self) -> usize {
        let supervised = |s: usize| self.mask[self.positions_of(s)].iter().filter(|&&mask| mask != 0.0).count();
        self.counted().map(supervised).sum()
    }
}

/// Lays `sequences` end to end and shifts: tokens `[..L-1]`, targets, mask and the numbers of tokens `[1..]`. If the
/// last token is read too, its position has target 0, mask 0 and numbers of 0.
///
/// # Errors
/// A sequence with fewer than two tokens, with a number of flags or numbers that differs from its number of tokens, or
/// with other columns or numbers than the first sequence.
pub fn pack(sequences: &[Sequence]) -> Result<PackedBatch> {
    let reads_last = sequences.first().is_some_and(|first| first.reads_last);
    let mut batch = PackedBatch { offsets: vec![0], reads_last, ..Default::default() };
    for sequence in sequences {
        check(sequence, sequences.first().unwrap_or(sequence))?;
        let length = sequence.positions();
        batch.tokens.extend(sequence.ids.iter().take(length).map(|&id| id as i32));
        batch.targets.extend(sequence.ids.iter().skip(1).map(|&id| id as i32));
        batch.mask.extend(sequence.supervised.iter().skip(1).map(|&counts| f64::from(u8::from(counts))));
        if reads_last {
            batch.targets.push(0);
            batch.mask.push(0.0);
        }
        let first = sequence.supervised.iter().skip(1).position(|counts| *counts);
        batch.prompts.push(first.map_or(length, |first| first + 1) as i32);
        batch.positions.extend((0..length).map(|position| position as i32));
        batch.offsets.push(batch.tokens.len() as i32);
        batch.max_len = batch.max_len.max(length);
        batch.rows.push(sequence.row);
        batch.context_prompts.extend(sequence.context_prompt.clone());
        for (name, &value) in &sequence.columns {
            batch.columns.entry(name.clone()).or_default().push(value);
        }
        for (name, values) in &sequence.lists {
            batch.lists.entry(name.clone()).or_default().push(values);
        }
        for (name, &value) in &sequence.per_sequence {
            batch.per_sequence.entry(name.clone()).or_default().push(value);
        }
        for (name, values) in &sequence.per_token {
            batch.per_token.entry(name.clone()).or_default().extend(values);
        }
        for (name, values) in &sequence.of_tokens {
            let (own, width) = (batch.per_token.entry(name.clone()).or_default(), sequence.width(name));
            own.extend(values.iter().skip(width));
            own.extend(std::iter::repeat_n(0.0, if reads_last { width } else { 0 }));
        }
        batch.widths.extend(sequence.widths.clone());
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
    let counts = |all: &BTreeMap<String, Vec<f64>>, rows: usize| {
        let wrong = |(name, values): &(&String, &Vec<f64>)| values.len() != rows * sequence.width(name);
        all.iter().find(wrong).map(|(name, values)| format!("{} values of `{name}` for {rows}", values.len()))
    };
    if let Some(what) = counts(&sequence.per_token, sequence.positions()) {
        return Err(DataError::Row { row, what: format!("{what} positions") });
    }
    if let Some(what) = counts(&sequence.of_tokens, sequence.ids.len()) {
        return Err(DataError::Row { row, what: format!("{what} tokens") });
    }
    if names_of(sequence) != names_of(first) || sequence.widths != first.widths {
        let (here, there) = (names_of(sequence).join(", "), names_of(first).join(", "));
        return Err(DataError::Row { row, what: format!("has the columns [{here}], row {} has [{there}]", first.row) });
    }
    Ok(())
}

/// Names of all numbers that a sequence carries.
fn names_of(sequence: &Sequence) -> Vec<&str> {
    let own = sequence
        .columns
        .keys()
        .chain(sequence.lists.keys())
        .chain(sequence.per_sequence.keys())
        .chain(sequence.per_token.keys())
        .chain(sequence.of_tokens.keys())
        .map(String::as_str);
    let own = own.chain(sequence.reads_last.then_some("the last token's position"));
    own.chain(sequence.context_prompt.is_some().then_some("another prompt")).collect()
}

/// Splits `sequences` into runs of at most `most` positions (see [`Sequence::extent`]): whole sequences, in order, as
/// many as fit. Neighbours of one `group` (the two answers of a pair) stay together. A sequence or group that is longer
/// by itself becomes its own run.
pub fn micro_batches(sequences: &[Sequence], most: usize) -> Vec<Range<usize>> {
    runs(sequences.chunk_by(together), most)
}

/// As [`micro_batches`], but neighbours of one `group` may be cut apart.
pub fn micro_batches_apart(sequences: &[Sequence], most: usize) -> Vec<Range<usize>> {
    runs(sequences.chunks(1), most)
}

fn runs<'a>(units: impl Iterator<Item = &'a [Sequence]>, most: usize) -> Vec<Range<usize>> {
    let (mut runs, mut start, mut positions, mut end) = (Vec::new(), 0, 0, 0);
    for unit in units {
        let length: usize = unit.iter().map(Sequence::extent).sum();
        if end > start && positions + length > most {
            runs.push(start..end);
            (start, positions) = (end, 0);
        }
        (end, positions) = (end + unit.len(), positions + length);
    }
    if start < end {
        runs.push(start..end);
    }
    runs
}

/// Whether two neighbours belong to one group.
pub fn together(one: &Sequence, next: &Sequence) -> bool {
    let group = |sequence: &Sequence| sequence.per_sequence.get(names::GROUP).copied();
    group(one).is_some() && group(one) == group(next)
}
