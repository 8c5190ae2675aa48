//! Rows as token ids with the tokens that are supervised, cut to length. What cannot be learned is dropped and counted.
//!
//! A token is supervised where its place in the text overlaps a supervised stretch. The end-of-text token closes what is
//! supervised, once: where the text spells it, there; else it is put at the end. Nothing stands after it, since nothing
//! there would be learned.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::layout::{Laid, Layout};
use super::{Row, RowCorpus};
use crate::data::cache::hex;
use crate::data::order::{self, Stretch, shuffled};
use crate::data::tokenizer::Placed;
use crate::data::{DataError, Examples, Result, Sequence, Tokenizer, TrainingData};

/// How a row that is too long is made shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncation {
    /// Its end is cut off, and with it the end-of-text token; dropped where no completion is left.
    #[default]
    Right,
    /// The beginning of its prompt is cut off (the token that inputs begin with stays); dropped where that is not enough.
    Left,
    /// It is dropped.
    Drop,
}

/// What became of the rows, for the receipt and for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows to train on.
    pub train: usize,
    /// Rows to evaluate on.
    pub held_out: usize,
    /// Rows dropped since nothing of the completion fits.
    pub dropped_too_long: usize,
    /// Rows dropped without being too long: nothing in them can be learned.
    pub dropped_empty: usize,
    /// Training rows left out since their prompt is held out.
    pub dropped_held_out_prompt: usize,
    /// Rows made shorter.
    pub truncated: usize,
    /// Rows in which one token holds the prompt's last and the completion's first characters.
    pub shared_tokens: usize,
    /// Prompts and completions that were joined with no space or line between them.
    pub joined_without_space: usize,
    /// Numeric columns that every row has: they reach the objective as `column.NAME`.
    pub columns: Vec<String>,
    /// Columns that are numbers in some rows only, and reach nobody.
    pub ragged_columns: Vec<String>,
}

/// Tokenised rows.
#[derive(Debug, Default)]
pub struct RowSet {
    ids: Vec<u32>,
    supervised: Vec<bool>,
    /// Where each row ends.
    ends: Vec<usize>,
    /// Each row's number in its data, counted from 0 with the dropped ones.
    rows: Vec<u64>,
    columns: BTreeMap<String, Vec<f64>>,
    key: String,
}

/// How rows become tokens.
pub struct Encoder<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How they are written.
    pub layout: &'a Layout,
    /// The most positions of a row: one less than its tokens, since the last is only predicted.
    pub longest: usize,
    /// What becomes of longer ones.
    pub truncation: Truncation,
}

/// A row as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tokens {
    ids: Vec<u32>,
    supervised: Vec<bool>,
}

impl Encoder<'_> {
    /// Tokenises both sides.
    ///
    /// # Errors
    /// A template that fails at a row; no row left to train on; a tokenizer without an end-of-text token.
    pub fn encode(&self, corpus: &RowCorpus) -> Result<TrainingData> {
        let mut counts = RowCounts { dropped_held_out_prompt: corpus.leaks, ..RowCounts::default() };
        let every: Vec<&Row> = corpus.train.iter().chain(&corpus.held_out).collect();
        (counts.columns, counts.ragged_columns) = numeric_columns(&every);
        let train = self.side(&corpus.train, &mut counts)?;
        let held_out = self.side(&corpus.held_out, &mut counts)?;
        (counts.train, counts.held_out) = (train.ends.len(), held_out.ends.len());
        if train.ends.is_empty() {
            return Err(DataError::NoRowLeft { what: corpus.name.clone(), longest: self.longest });
        }
        let templated = every.iter().any(|row| self.layout.templates(row));
        Ok(TrainingData {
            train: std::sync::Arc::new(train),
            held_out: std::sync::Arc::new(held_out),
            sources: corpus.sources.clone(),
            rows: Some(counts),
            chat_template: templated.then(|| self.layout.template.source().to_owned()),
        })
    }

    fn side(&self, rows: &[Row], counts: &mut RowCounts) -> Result<RowSet> {
        let eos = self.tokenizer.eos().ok_or_else(|| DataError::NoEndOfText(self.tokenizer.name().into()))?;
        let laid: Vec<Laid> = rows.iter().map(|row| self.layout.lay_out(row)).collect::<Result<_>>()?;
        let placed = self.tokenizer.encode_placed(laid.iter().map(|laid| laid.text.as_str()).collect())?;
        let mut set = RowSet::default();
        for (number, ((row, laid), placed)) in rows.iter().zip(&laid).zip(&placed).enumerate() {
            counts.joined_without_space += usize::from(!self.layout.templates(row) && joined_without_space(laid));
            counts.shared_tokens += usize::from(shares_a_token(laid, placed));
            let tokens = supervise(laid, placed, eos, self.tokenizer.prefix());
            let whole = tokens.ids.len();
            let learnable = tokens.learnable();
            let Some(tokens) = self.fit(tokens) else {
                *(if learnable { &mut counts.dropped_too_long } else { &mut counts.dropped_empty }) += 1;
                continue;
            };
            counts.truncated += usize::from(tokens.ids.len() < whole);
            set.push(number as u64, tokens, row, &counts.columns);
        }
        set.key = set.hash();
        Ok(set)
    }

    /// Cuts a row to length; `None` where nothing that can be learned is left.
    fn fit(&self, mut tokens: Tokens) -> Option<Tokens> {
        let over = tokens.ids.len().saturating_sub(self.longest.saturating_add(1));
        if over > 0 {
            match self.truncation {
                Truncation::Drop => return None,
                Truncation::Right => tokens.truncate(self.longest + 1),
                Truncation::Left => {
                    let prompt = tokens.supervised.iter().position(|s| *s)?;
                    // One token must stay in front for the first supervised one to be predicted from.
                    if over + 1 > prompt {
                        return None;
                    }
                    let first = usize::from(tokens.ids.first() == self.tokenizer.prefix().as_ref());
                    tokens.ids.drain(first..first + over);
                    tokens.supervised.drain(first..first + over);
                }
            }
        }
        tokens.learnable().then_some(tokens)
    }
}

impl Tokens {
    /// Whether a supervised token stands behind another token.
    fn learnable(&self) -> bool {
        self.supervised.iter().skip(1).any(|s| *s)
    }

    fn truncate(&mut self, length: usize) {
        self.ids.truncate(length);
        self.supervised.truncate(length);
    }
}

/// Which tokens of a row are supervised.
fn supervise(laid: &Laid, placed: &Placed, eos: u32, prefix: Option<u32>) -> Tokens {
    let mut tokens = Tokens { ids: placed.ids.clone(), supervised: vec![false; placed.ids.len()] };
    let mut end = None;
    for span in &laid.supervised {
        let inside = |(a, b): (usize, usize)| a < span.end && b.max(a + 1) > span.start;
        let mut own: Vec<usize> = (0..tokens.ids.len()).filter(|i| inside(placed.offsets[*i])).collect();
        let after = own.last().map_or_else(|| first_at(placed, span.end), |last| last + 1);
        match own.iter().position(|i| tokens.ids[*i] == eos) {
            // Generation stops there: what the text says after it is never asked for.
            Some(stop) => own.truncate(stop + 1),
            // Some templates mark the words without the token that ends them.
            None if tokens.ids.get(after) == Some(&eos) => own.push(after),
            None => {}
        }
        own.iter().for_each(|i| tokens.supervised[*i] = true);
        end = Some(own.last().map_or(after, |last| last + 1));
    }
    if let Some(end) = end {
        let ends_itself = end > 0 && tokens.ids[end - 1] == eos && tokens.supervised[end - 1];
        tokens.truncate(end);
        if !ends_itself {
            tokens.ids.push(eos);
            tokens.supervised.push(true);
        }
    }
    // A template may have written the token that inputs begin with.
    if let Some(prefix) = prefix.filter(|prefix| tokens.ids.first() != Some(prefix)) {
        tokens.ids.insert(0, prefix);
        tokens.supervised.insert(0, false);
    }
    tokens
}

/// The first token that begins at character `place` or after it.
fn first_at(placed: &Placed, place: usize) -> usize {
    placed.offsets.iter().position(|(start, _)| *start >= place).unwrap_or(placed.offsets.len())
}

fn shares_a_token(laid: &Laid, placed: &Placed) -> bool {
    laid.supervised.iter().any(|span| placed.offsets.iter().any(|(a, b)| *a < span.start && span.start < *b))
}

fn joined_without_space(laid: &Laid) -> bool {
    let Some(boundary) = laid.supervised.first().map(|span| span.start) else { return false };
    let around = |at: Option<usize>| at.and_then(|at| laid.text.chars().nth(at)).is_some_and(|c| !c.is_whitespace());
    around(boundary.checked_sub(1)) && around(Some(boundary))
}

/// Columns that are numbers (or true and false) in every row, and those that are so only in some.
fn numeric_columns(rows: &[&Row]) -> (Vec<String>, Vec<String>) {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, _) in rows.iter().flat_map(|row| row.columns.iter().filter(|(_, value)| number(value).is_some())) {
        *numbers.entry(name).or_default() += 1;
    }
    let (whole, ragged): (Vec<_>, Vec<_>) = numbers.into_iter().partition(|(_, count)| *count == rows.len());
    let names = |columns: Vec<(&str, usize)>| columns.into_iter().map(|(name, _)| name.to_owned()).collect();
    (names(whole), names(ragged))
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_bool().map(|truth| f64::from(u8::from(truth))))
}

impl RowSet {
    fn push(&mut self, number: u64, tokens: Tokens, row: &Row, columns: &[String]) {
        self.ids.extend(tokens.ids);
        self.supervised.extend(tokens.supervised);
        self.ends.push(self.ids.len());
        self.rows.push(number);
        for name in columns {
            let value = row.columns.get(name).and_then(self::number).unwrap_or(f64::NAN);
            self.columns.entry(name.clone()).or_default().push(value);
        }
    }

    fn hash(&self) -> String {
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
        hex(&hash.finalize())
    }

    fn bounds(&self, index: usize) -> std::ops::Range<usize> {
        let end_of = |index: usize| self.ends.get(index).copied().unwrap_or_default();
        index.checked_sub(1).map_or(0, end_of)..end_of(index)
    }
}

impl Examples for RowSet {
    fn key(&self) -> String {
        self.key.clone()
    }

    fn documents(&self) -> usize {
        self.ends.len()
    }

    fn tokens(&self) -> u64 {
        self.ids.len() as u64
    }

    fn epoch(&self, context: usize, prefix: bool, seed: u64, epoch: u64) -> Vec<Stretch> {
        shuffled(self.in_order(context, prefix), seed, epoch, context)
    }

    /// Rows are whole: they were cut to length when they were tokenised.
    fn in_order(&self, _context: usize, _prefix: bool) -> Vec<Stretch> {
        let whole = |row: usize| Stretch { document: row as u32, begin: 1, end: self.bounds(row).len() as u32 };
        (0..self.ends.len()).map(whole).collect()
    }

    /// The prefix is among the row's tokens already.
    fn sequences(&self, stretch: Stretch, _prefix: Option<u32>, _group: u64) -> Vec<Sequence> {
        let row = stretch.document as usize;
        let columns = self.columns.iter().filter_map(|(name, values)| Some((name.clone(), *values.get(row)?)));
        vec![Sequence {
            ids: self.ids[self.bounds(row)].to_vec(),
            supervised: self.supervised[self.bounds(row)].to_vec(),
            columns: columns.collect(),
            row: self.rows.get(row).copied().unwrap_or_default(),
            ..Default::default()
        }]
    }

    fn usual_length(&self, context: usize) -> usize {
        (self.ids.len() - self.ends.len()).checked_div(self.ends.len()).unwrap_or(context).max(1)
    }

    /// By chance: rows often come in turn (task after task), and every n-th of them would be of one kind.
    fn some(&self, all: Vec<Stretch>, kept: usize) -> Vec<Stretch> {
        order::some(all, kept)
    }
}

impl fmt::Display for RowCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows to train on, {} held out", self.train, self.held_out)?;
        let told = [
            (self.dropped_too_long, "dropped: nothing of the completion fits"),
            (self.dropped_empty, "dropped: nothing in them can be learned"),
            (self.dropped_held_out_prompt, "left out of training: their prompt is held out"),
            (self.truncated, "truncated"),
            (self.shared_tokens, "with a token that holds the prompt's end and the completion's beginning"),
            (
                self.joined_without_space,
                "joined with nothing between prompt and completion (data.chat_template = \"plain\" puts a line break there)",
            ),
        ];
        for (count, what) in told.iter().filter(|(count, _)| *count > 0) {
            write!(f, "; {count} {what}")?;
        }
        if !self.ragged_columns.is_empty() {
            let names = self.ragged_columns.join(", ");
            write!(f, "; columns that are no number in every row, and so not handed on: {names}")?;
        }
        Ok(())
    }
}
