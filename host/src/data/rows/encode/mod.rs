//! Turns rows into token ids with flags for the supervised tokens, truncated to length. Rows without anything to
//! learn are dropped and counted.
//!
//! A token is supervised if its place in the text overlaps a supervised span. If a chat template marks what is
//! learned, exactly the tokens of its marks are supervised, as in transformers, and the template's own ending
//! stays. Otherwise the supervised part ends with one token that ends answers (see [`Tokenizer::is_end`]): the one
//! in the text or, if there is none, the end-of-text token, which is added. Tokens after it are left out, since
//! they would not be learned.
//!
//! Rows that are joined without a template get the tokenizer's prefix token in front. Rows that a chat template
//! writes begin as the template writes them.
//!
//! Both answers of a pair follow the same prompt tokens. If a tokenizer merges the prompt's last characters with
//! the first ones of one answer but not of the other, the prompt ends before those characters on both sides. If marks
//! decide what is learned, the supervised tokens of each side are those in its marks.

mod context;
mod supervise;

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::counts::RowCounts;
use super::kind::{MARGIN, Part, RowKind};
use super::row::Row;
use super::set::{Columns, RowSet, Tokens};
use super::store::Rows;
use super::store::corpus::RowCorpus;
use super::store::every::Every;
use super::text::number;
use super::truncation::{Filter, Truncation};
use super::write::laid::Laid;
use super::write::layout::RowLayout;
use super::write::parts::without_closing;
use super::write::segments::{check_segments, segment_ends};
use crate::data::error::{DataError, Result};
use crate::data::examples::TrainingData;
use crate::data::progress;
use crate::data::tokenizer::Tokenizer;
use crate::data::tokenizer::encode::Placed;
use supervise::{begun_with, is_cut_off, joined_without_space, share_the_prompt, shares_a_token, supervise};

/// Turns rows into tokens.
pub struct Encoder<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How they are written.
    pub layout: &'a RowLayout,
    /// The most positions of a row; see [`RowKind::most_tokens`].
    pub longest: usize,
    /// How longer rows are truncated; `None`: [`RowKind::truncation`].
    pub truncation: Option<Truncation>,
    /// Rows of other lengths are dropped.
    pub filter: Filter,
    /// The column with the prompts behind which the role `context` reads the rows' answers.
    pub context: Option<&'a str>,
    /// What the objectives read beyond the tokens before each target.
    pub reads: Reads,
    /// The folder in which tokens are kept from one run to the next; `None`: they are not kept.
    pub cache: Option<&'a Path>,
}

/// What objectives read of rows beyond the tokens before each target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The last token of a row, so that it needs a place in the context too.
    pub last: bool,
    /// Values of segments: a row without a whole segment teaches nothing.
    pub segments: bool,
}

/// Why a row is dropped.
enum Dropped {
    TooLong,
    NoSegment,
    Empty,
    Unlearned,
    Same,
}

impl<'a> Encoder<'a> {
    /// An encoder that truncates and filters nothing beyond what the kind of rows demands, for reading without an experiment.
    pub fn new(tokenizer: &'a Tokenizer, layout: &'a RowLayout, longest: usize) -> Encoder<'a> {
        Encoder {
            tokenizer,
            layout,
            longest,
            truncation: None,
            filter: Filter::default(),
            context: None,
            reads: Reads::default(),
            cache: None,
        }
    }

    /// Tokenises both sides.
    ///
    /// # Errors
    /// A template that fails on a row; a token for which the model has no row; no row left to train on; a tokenizer
    /// without an end-of-text token.
    pub fn encode(&self, corpus: &RowCorpus) -> Result<TrainingData> {
        let kind = corpus.kind;
        let mut counts = RowCounts {
            kind,
            formats: corpus.formats.iter().map(|(format, rows)| (format.name().to_owned(), *rows)).collect(),
            dropped_same_score: corpus.same_score,
            mix: corpus.mix.clone(),
            dropped_held_out_prompt: corpus.leaks,
            ..RowCounts::default()
        };
        let sides = [&*corpus.train, &*corpus.held_out];
        let every = Every(&sides);
        let survey = every.survey();
        (counts.columns, counts.ragged_columns) = survey.numeric_columns();
        (counts.lists, counts.ragged_lists) = every.list_columns()?;
        // A column of numbers and lists has one fault.
        let mixed: Vec<String> =
            counts.ragged_columns.iter().filter(|name| counts.has_ragged_list(name)).cloned().collect();
        counts.ragged_columns.retain(|name| !mixed.contains(name));
        counts.inexact_columns = survey.inexact();
        counts.ragged_columns.retain(|name| !counts.inexact_columns.contains(name));
        if counts.ragged_columns.iter().any(|column| column == MARGIN)
            && kind == RowKind::Preference
            && let Some(without) = every.find(|row| row.columns.get(MARGIN).and_then(number).is_none())?
        {
            let what = "missing, and other rows have one: every pair needs a margin, or none may have one".to_owned();
            return Err(DataError::Json { place: without.place, key: MARGIN.to_owned(), what });
        }
        check_segments(every)?;
        let (mut train, with_ends) = self.side(kind, &corpus.train, &mut counts)?;
        train.mix(corpus.mix.iter().map(|source| source.weight).collect())?;
        counts.no_end_learned = kind != RowKind::Prompt && !train.is_empty() && with_ends == 0;
        let (held_out, _) = self.side(kind, &corpus.held_out, &mut counts)?;
        counts.dropped_to_evaluate = corpus.held_out.len() - held_out.len();
        (counts.train, counts.held_out) = (train.len(), held_out.len());
        for (own, rows) in counts.mix.iter_mut().zip(train.of_sources()) {
            own.rows = rows;
        }
        counts.only_label = corpus.only_label()?.filter(|_| train.len() > 1);
        if train.is_empty() {
            return Err(self.no_row_left(corpus, "train", counts));
        }
        if held_out.is_empty() && !corpus.held_out.is_empty() {
            return Err(self.no_row_left(corpus, "evaluate", counts));
        }
        counts.unwritten_keys = self.layout.unwritten_keys(every, kind)?;
        counts.other_opening = self.layout.other_opening(every, kind)?;
        let templated = survey.with_messages > 0 || self.layout.strings && survey.rows > 0;
        Ok(TrainingData {
            train: std::sync::Arc::new(train),
            held_out: std::sync::Arc::new(held_out),
            sources: corpus.sources.clone(),
            rows: Some(counts),
            chat_template: templated.then(|| self.layout.template.source().to_owned()),
        })
    }

    fn no_row_left(&self, corpus: &RowCorpus, purpose: &'static str, counts: RowCounts) -> DataError {
        DataError::NoRowLeft { what: corpus.name.clone(), purpose, longest: self.longest, counts: Box::new(counts) }
    }

    /// Returns the rows of one side as tokens, and how many of them teach a token that ends an answer.
    fn side(&self, kind: RowKind, rows: &Arc<Rows>, counts: &mut RowCounts) -> Result<(RowSet, usize)> {
        let eos = self.tokenizer.eos().ok_or_else(|| DataError::NoEndOfText(self.tokenizer.name().into()))?;
        let (mut set, mut with_ends) = (RowSet::new(kind, rows.clone()), 0);
        let bar = progress::bar("rows tokenised", Some(rows.len() as u64));
        for block in rows.blocks() {
            let block = block?;
            with_ends += self.add(&block, kind, eos, &mut set, counts)?;
            bar.inc(block.len() as u64);
        }
        bar.finish_and_clear();
        set.close()?;
        Ok((set, with_ends))
    }

    /// Adds rows with their numbers to `set`; returns how many of them teach a token that ends an answer.
    fn add(
        &self,
        rows: &[(usize, Row)],
        kind: RowKind,
        eos: u32,
        set: &mut RowSet,
        counts: &mut RowCounts,
    ) -> Result<usize> {
        let ends = kind.texts();
        let texts: Vec<Result<Vec<Laid>>> =
            rows.par_iter().map(|(_, row)| ends.iter().map(|end: &Part| self.lay_out(row, *end)).collect()).collect();
        let laid: Vec<Laid> = texts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let placed =
            self.tokenizer.encode_placed_by(self.cache, laid.iter().map(|laid| laid.text.as_str()).collect())?;
        let mut context_prompts = self.context_prompts(rows)?.into_iter();
        let mut with_ends = 0;
        let texts = laid.chunks(ends.len()).zip(placed.chunks(ends.len()));
        for ((number, row), (laid, placed)) in rows.iter().zip(texts) {
            let both = || laid.iter().zip(placed);
            let context_prompt = context_prompts.next();
            let lengths = || both().map(|(laid, placed)| (placed.ids.len(), laid.text.chars().count()));
            if !self.filter.is_empty()
                && let Some(limit) = lengths().find_map(|(tokens, chars)| self.filter.violated(tokens, chars))
            {
                *counts.filtered.entry(limit).or_default() += 1;
                continue;
            }
            counts.joined_without_space +=
                usize::from(!self.layout.templates(row) && laid.iter().any(joined_without_space));
            counts.shared_tokens += usize::from(both().any(|(laid, placed)| shares_a_token(laid, placed)));
            counts.unplaced_answers += laid.iter().map(|laid| laid.unplaced).sum::<usize>();
            let is_end = |id: u32| self.tokenizer.is_end(id);
            let mut early = false;
            for (laid, placed) in both() {
                early |= self.ends_early(laid, placed)?;
            }
            counts.ended_early += usize::from(early);
            let closed = ends.iter().map(|end| is_cut_off(row, *end).map(|cut| !cut)).collect::<Result<Vec<bool>>>()?;
            let any_cut = closed.first() == Some(&false);
            let tokens = both().zip(closed).map(|((laid, placed), closed)| {
                let segment_ends = segment_ends(row, laid, placed)?;
                let tokens = supervise(laid, placed, segment_ends, closed.then_some(eos), is_end);
                // A template decides itself how a text begins, as in apply_chat_template of transformers.
                Ok(begun_with(self.tokenizer.prefix().filter(|_| !self.layout.templates(row)), tokens))
            });
            let tokens: Vec<Tokens> = tokens.collect::<Result<_>>()?;
            let is_exact = both().all(|(laid, _)| laid.is_exact);
            let only_ends = |tokens: &Tokens| {
                let learned = tokens.ids.iter().zip(&tokens.supervised).filter(|(_, learned)| **learned);
                tokens.supervised.contains(&true) && learned.into_iter().all(|(id, _)| is_end(*id))
            };
            let is_empty = tokens.iter().any(only_ends);
            for tokens in &tokens {
                self.tokenizer.within_model(&tokens.ids).map_err(|error| DataError::Json {
                    place: row.place.clone(),
                    key: String::new(),
                    what: format!("{error}; {}", error.hint().unwrap_or_default()),
                })?;
            }
            let fitted = self.fit(kind, tokens, is_exact).map_err(|dropped| match dropped {
                Dropped::Empty if laid.iter().any(|laid| laid.is_unlearned) => Dropped::Unlearned,
                dropped => dropped,
            });
            match fitted {
                Ok((tokens, truncated)) => {
                    counts.truncated += usize::from(truncated);
                    counts.empty_answers += usize::from(is_empty);
                    let learned = tokens.iter().flat_map(|tokens| tokens.ids.iter().zip(&tokens.supervised));
                    with_ends += usize::from(learned.into_iter().any(|(id, learned)| *learned && is_end(*id)));
                    let cut = truncated && self.truncation.unwrap_or(kind.truncation()) == Truncation::Right;
                    let context_prompt = context_prompt.map(|prompt| self.fit_context(kind, prompt, &tokens));
                    counts.truncated_contexts += usize::from(context_prompt.as_ref().is_some_and(|(_, cut)| *cut));
                    let columns = Columns { numbers: &counts.columns, lists: &counts.lists };
                    set.push(*number, tokens, row, columns, cut || any_cut)?;
                    set.push_context(context_prompt.map(|(prompt, _)| prompt))?;
                }
                Err(Dropped::TooLong) => counts.dropped_too_long += 1,
                Err(Dropped::NoSegment) => counts.dropped_no_segment += 1,
                Err(Dropped::Empty) => counts.dropped_empty += 1,
                Err(Dropped::Unlearned) => counts.dropped_unlearned += 1,
                Err(Dropped::Same) => counts.dropped_same += 1,
            }
        }
        Ok(with_ends)
    }

    fn lay_out(&self, row: &Row, end: Part) -> Result<Laid> {
        let laid = self.layout.lay_out(row, end)?;
        let cut = is_cut_off(row, end)? && self.layout.templates(row);
        Ok(if cut { without_closing(laid, row, end) } else { laid })
    }

    /// Truncates a row to length; returns whether it was truncated. `is_exact`: marks decide which tokens are learned.
    fn fit(&self, kind: RowKind, mut texts: Vec<Tokens>, is_exact: bool) -> Result<(Vec<Tokens>, bool), Dropped> {
        if let [chosen, rejected] = texts.as_mut_slice() {
            if chosen.ids == rejected.ids {
                return Err(Dropped::Same);
            }
            if !is_exact {
                share_the_prompt(chosen, rejected);
            }
        }
        if !texts.iter().all(|tokens| tokens.serves(kind)) {
            return Err(Dropped::Empty);
        }
        let (most, longest) = (self.most_tokens(kind), texts.iter().map(|t| t.ids.len()).max().unwrap_or(0));
        let over = longest.saturating_sub(most);
        if over == 0 {
            return Ok((texts, false));
        }
        for tokens in &mut texts {
            match self.truncation.unwrap_or(kind.truncation()) {
                Truncation::Drop => return Err(Dropped::TooLong),
                Truncation::Right => tokens.truncate(most),
                Truncation::Left => self.cut_left(tokens, over)?,
            }
        }
        if !texts.iter().all(|tokens| tokens.serves(kind)) {
            return Err(Dropped::TooLong);
        }
        if self.reads.segments && !texts.iter().all(Tokens::has_segment) {
            return Err(Dropped::NoSegment);
        }
        Ok((texts, true))
    }

    /// The most tokens of a text.
    fn most_tokens(&self, kind: RowKind) -> usize {
        if self.reads.last { self.longest } else { kind.most_tokens(self.longest) }
    }

    /// Whether an answer contains a token that ends it, followed by words within the answer, which are then not
    /// learned. White space and special tokens that a template writes after the end are not words.
    fn ends_early(&self, laid: &Laid, placed: &Placed) -> Result<bool> {
        if laid.is_exact {
            return Ok(false);
        }
        for span in &laid.supervised {
            let inside = |(a, b): (usize, usize)| a < span.end && b > span.start;
            let own = (0..placed.ids.len()).filter(|i| inside(placed.offsets[*i])).map(|i| placed.ids[i]);
            let after: Vec<u32> = own.skip_while(|id| !self.tokenizer.is_end(*id)).skip(1).collect();
            if !after.is_empty() && !self.tokenizer.decode(&after, true)?.trim().is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes `over` tokens from the beginning of the prompt. One token must stay before the first supervised
    /// token, which is predicted from it.
    fn cut_left(&self, tokens: &mut Tokens, over: usize) -> Result<(), Dropped> {
        if over + 1 > tokens.prompt() {
            return Err(Dropped::TooLong);
        }
        let first = usize::from(tokens.ids.first() == self.tokenizer.prefix().as_ref());
        tokens.ids.drain(first..first + over);
        tokens.supervised.drain(first..first + over);
        if !tokens.segment_ends.is_empty() {
            tokens.segment_ends.drain(first..first + over);
        }
        Ok(())
    }
}
