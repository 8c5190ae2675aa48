//! How many rows were used, dropped and truncated, for the receipt and the user.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::kind::{EXAMPLES, RowKind};
use crate::data::batches::mixture::quotas;
use crate::decimals::counted;

/// How many rows were used, dropped and truncated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RowCounts {
    /// Their kind.
    pub kind: RowKind,
    /// How many rows were read in which format; empty for generated rows.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub formats: BTreeMap<String, usize>,
    /// Rows to train on.
    pub train: usize,
    /// Rows to evaluate on.
    pub held_out: usize,
    /// Rows dropped because they are too long: nothing of a completion fits, or one answer of a pair does not fit
    /// whole.
    pub dropped_too_long: usize,
    /// Rows dropped because truncation leaves no whole segment of their answer, and an objective reads values of segments.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_no_segment: usize,
    /// Rows dropped although they are not too long: nothing in them can be learned.
    pub dropped_empty: usize,
    /// Rows dropped because all their answers are flagged as not learned.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_unlearned: usize,
    /// Pairs dropped because both answers are the same tokens.
    pub dropped_same: usize,
    /// Rows dropped because of their length, by the limit of `data.filter` that they violate.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub filtered: BTreeMap<String, usize>,
    /// The sources of `data.mix`; empty if there is one source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<MixedSource>,
    /// Rows dropped because all their answers have the same score.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_same_score: usize,
    /// Training rows dropped because their prompt is held out.
    pub dropped_held_out_prompt: usize,
    /// How many of the dropped rows were evaluation rows.
    pub dropped_to_evaluate: usize,
    /// Rows with an answer without text: only its end is learned.
    #[serde(skip_serializing_if = "is_zero")]
    pub empty_answers: usize,
    /// The label of all training rows, if it is the same for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_label: Option<bool>,
    /// Rows that were truncated.
    pub truncated: usize,
    /// Rows whose other prompt, of the role `context`, was truncated.
    #[serde(skip_serializing_if = "is_zero")]
    pub truncated_contexts: usize,
    /// Rows in which one token spans the end of the prompt and the beginning of the answer.
    pub shared_tokens: usize,
    /// Rows whose answer contains the end-of-text token before its end: the rest is left out.
    pub ended_early: usize,
    /// Earlier answers of conversations that are not learned, because their place in the chat template's text
    /// cannot be found.
    pub unplaced_answers: usize,
    /// Whether no training row teaches a token that ends an answer.
    #[serde(skip_serializing_if = "is_false")]
    pub no_end_learned: bool,
    /// Prompts and answers that were joined without white space between them.
    pub joined_without_space: usize,
    /// Numeric columns that every row has: they reach the objective as `column.NAME`.
    pub columns: Vec<String>,
    /// Columns of lists of numbers that every row has: they reach the objective as `column.NAME`, with `column.NAME.length`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<String>,
    /// Columns that are lists of numbers in some rows only, each with the first row that has none: they do not reach the
    /// objective.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ragged_lists: Vec<String>,
    /// Columns that are numbers in some rows only: they do not reach the objective.
    pub ragged_columns: Vec<String>,
    /// Columns with integers that a 64-bit float cannot hold exactly: they do not reach the objective.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inexact_columns: Vec<String>,
    /// Columns of texts, lists or objects that nothing reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread_columns: Vec<String>,
    /// Columns of numbers that no objective, reward or option names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub undeclared_columns: Vec<String>,
    /// Keys of messages that the chat template does not write, and how many rows have each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unwritten_keys: BTreeMap<String, usize>,
    /// How the generation prompt differs from how the chat template begins answers, with an example.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_opening: Option<String>,
}

/// A source of `data.mix`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixedSource {
    /// Its paths, as written.
    pub path: String,
    /// Its weight, as written.
    pub weight: f64,
    /// How many of its rows are trained on.
    pub rows: usize,
}

/// A weight is a finite number.
impl Eq for MixedSource {}

impl RowCounts {
    /// Whether a column is a list of numbers in some rows only.
    pub fn has_ragged_list(&self, column: &str) -> bool {
        let names = |own: &String| own.strip_prefix(column).is_some_and(|rest| rest.starts_with(NOT_IN));
        self.ragged_lists.iter().any(names)
    }

    /// The unread columns that hold another example or a copy of this one, each in backquotes, and the others.
    fn copies(&self) -> (Vec<String>, Vec<&str>) {
        let unread = self.unread_columns.iter().map(String::as_str);
        let (copies, others): (Vec<&str>, Vec<&str>) =
            unread.partition(|name| !self.formats.is_empty() && EXAMPLES.contains(name));
        (copies.into_iter().map(|name| format!("`{name}`")).collect(), others)
    }

    /// These counts without those that a resumed run does not compare: notes that follow from the plugins' descriptions and the
    /// template, and the empty answers, which earlier versions counted by another rule.
    #[must_use]
    pub fn without_notes(self) -> Self {
        let (unread_columns, undeclared_columns, unwritten_keys, other_opening) = Default::default();
        Self { unread_columns, undeclared_columns, unwritten_keys, other_opening, empty_answers: 0, ..self }
    }
}

/// What follows a column's name in [`RowCounts::ragged_lists`], before the first row without it.
pub(super) const NOT_IN: &str = " (not in ";

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn is_false(truth: &bool) -> bool {
    !truth
}

impl fmt::Display for RowCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = self.kind.noun().trim_end_matches('s');
        write!(f, "{} to train on, {} held out", counted(self.train, noun), self.held_out)?;
        if !self.formats.is_empty() {
            let all: Vec<String> = match self.formats.len() {
                1 => self.formats.keys().cloned().collect(),
                _ => self.formats.iter().map(|(format, rows)| format!("{format} ({rows})")).collect(),
            };
            write!(f, ", read as {}", all.join(" and "))?;
            let (copies, _) = self.copies();
            match copies.as_slice() {
                [] => {}
                [only] => write!(f, " ({only} is not read)")?,
                several => write!(f, " ({} are not read)", several.join(", "))?,
            }
        }
        if !self.mix.is_empty() {
            let weights: Vec<f64> = self.mix.iter().map(|source| source.weight).collect();
            let sizes: Vec<usize> = self.mix.iter().map(|source| source.rows).collect();
            let source = |(own, drawn): (&MixedSource, usize)| format!("{drawn} of the {} of {}", own.rows, own.path);
            let all: Vec<String> = self.mix.iter().zip(quotas(&sizes, &weights)).map(source).collect();
            write!(f, "; an epoch draws {}", all.join(", "))?;
        }
        let too_long = match self.kind {
            RowKind::PromptCompletion => {
                "dropped: too long, so that no token of the answer fits (data.max_length, by default model.context; \
                 data.truncation = \"left\" cuts prompts)"
            }
            _ => "dropped: too long (data.max_length, by default model.context)",
        };
        let notes = [
            (self.dropped_too_long, too_long),
            (self.dropped_no_segment, "dropped: no whole segment of the answer fits (data.max_length, model.context)"),
            (self.dropped_empty, "dropped: nothing in them can be learned"),
            (
                self.dropped_unlearned,
                "dropped: every answer in them is flagged as not learned (`weight`: 0, or a key like it)",
            ),
            (self.dropped_same, "dropped: both answers are the same"),
            (self.dropped_same_score, "dropped: all answers have the same score"),
            (self.dropped_held_out_prompt, "left out of training: their prompt is held out"),
            (self.dropped_to_evaluate, "of the dropped ones were held out"),
            (self.empty_answers, "with an empty answer, of which only the end is learned"),
            (self.truncated, "truncated"),
            (self.truncated_contexts, "with a prompt of [context] that was cut on the left"),
            (self.ended_early, "with an end-of-text token inside the answer: the rest of it is left out"),
            (
                self.unplaced_answers,
                "earlier answers not learned: the chat template rewrites them once later messages follow, and their places cannot \
                 be found ({% generation %} in data.chat_template marks them)",
            ),
            (
                self.shared_tokens,
                "with a token that spans the prompt's end and the answer's beginning, so that generated answers begin with other \
                 tokens than learned ones (move the space or line break at the prompt's end to the beginning of the answer)",
            ),
            (
                self.joined_without_space,
                "joined with nothing between prompt and answer (data.chat_template = \"plain\" puts a line break there)",
            ),
        ];
        for (limit, count) in &self.filtered {
            write!(f, "; {count} dropped: data.filter.{limit}")?;
        }
        for (count, what) in notes.iter().filter(|(count, _)| *count > 0) {
            write!(f, "; {count} {what}")?;
        }
        if let Some(label) = self.only_label {
            let (has, lacks) = if label { ("desirable", "undesirable") } else { ("undesirable", "desirable") };
            write!(
                f,
                "; the label of every row is {label}: all answers are {has}, and nothing is learned from {lacks} ones"
            )?;
        }
        if self.no_end_learned {
            f.write_str(
                "; no row teaches a token that ends an answer, so the model does not learn to stop (answers that were cut off do \
                 not end; a chat template's {% generation %} marks must include the end, as {{ message.content + eos_token }} \
                 does, and it must be one that the tokenizer or config.json names as eos_token or eos_token_id)",
            )?;
        }
        if !self.ragged_columns.is_empty() {
            let names = self.ragged_columns.join(", ");
            write!(f, "; columns that are not a number in every row, and so not passed to the objective: {names}")?;
        }
        if !self.ragged_lists.is_empty() {
            let names = self.ragged_lists.join(", ");
            write!(
                f,
                "; columns that are not a list of numbers in every row, and so not passed to the objective: {names}"
            )?;
        }
        if !self.inexact_columns.is_empty() {
            let names = self.inexact_columns.join(", ");
            write!(
                f,
                "; columns with integers beyond 2^53, which a 64-bit float would round, and so not passed to the objective: {names}"
            )?;
        }
        let (_, unread) = self.copies();
        if !unread.is_empty() {
            let names = unread.join(", ");
            write!(
                f,
                "; columns that nothing reads: {names} (what belongs to the prompt must be in the prompt's own column, or in \
                 messages that a chat template writes)"
            )?;
        }
        if !self.undeclared_columns.is_empty() {
            let names = self.undeclared_columns.join(", ");
            write!(
                f,
                "; columns of numbers that no objective, reward or option names: {names} (they change nothing unless an objective \
                 reads `column.NAME`, as a weighted one does)"
            )?;
        }
        if !self.unwritten_keys.is_empty() {
            let rows = |count: usize| if count == 1 { "1 row".to_owned() } else { format!("{count} rows") };
            let named = self.unwritten_keys.iter().map(|(key, count)| format!("{key} in {}", rows(*count)));
            let names = named.collect::<Vec<_>>().join(", ");
            write!(
                f,
                "; keys of messages that the chat template does not write: {names} (they are neither read nor learned; give \
                 data.chat_template a template that writes them, or remove them)"
            )?;
        }
        if let Some(opening) = &self.other_opening {
            write!(f, "; {opening}")?;
        }
        Ok(())
    }
}
