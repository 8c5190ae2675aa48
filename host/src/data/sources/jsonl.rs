//! The source `jsonl`: rows of JSON lines, of the kind that the first objective requires.

use plugin_api::manifest::DataKind;
use serde::Serialize;

use super::{
    data_source::{DataSource, Writing},
    files::{self, HeldOut},
};
use crate::data::{
    corpus::Corpus,
    error::{DataError, Result},
    rows::{Columns, RowCorpus, RowKind, RowOptions, SEPARATOR, Truncation, split::Split},
};
use crate::keys::notes::Notes;
use crate::keys::{Form, table};

table! {
    /// The keys as written.
    pub struct Written at "data" {
        /// jsonl: column with the value train, or test, validation, valid, val, dev, eval or held_out; instead of held_out
        split_column: String, Form::Text, example "split";
        /// jsonl: column whose hash selects the held-out rows, so that rows with the same value stay together
        group_column: String, Form::Text, default "the prompt", example "qid";
        /// jsonl: template with which rows become text, also those of strings: "tokenizer" (the tokenizer's own; "tokenizer:NAME"
        /// if it has several), "plain" (one message per line, an end-of-text token after those of the assistant), a Jinja file,
        /// or Jinja itself
        chat_template: String, Form::Text,
            default "messages: the tokenizer's own, or \"plain\" if it has none; strings are joined unchanged",
            example "tokenizer";
        /// jsonl: the most tokens of a row that the model reads (the last token of a completion is only predicted and does not
        /// count; in pairs and prompts every token counts)
        max_length: usize, Form::Int(1, 1 << 24), default "the model's context length", example 512;
        /// jsonl: how longer rows are shortened. right (completions only): their end is removed; left: the beginning of their
        /// prompt is removed, the same part for both answers of a pair; drop: they are dropped. Rows with nothing left
        /// to learn are dropped and counted
        truncation: Truncation, Form::Word(Truncation::WORDS),
            default "completions: \"right\"; prompts alone: \"left\"; pairs and labelled answers: \"drop\"",
            example "left";
        /// jsonl: what is put after each segment of a completion that is a list of texts (`completion` or `completions`: the steps
        /// of a solution), the last one too; a segment ends with the last character of its separator
        segment_separator: String, Form::Text, default "a line break", example " ";
        columns in Option<WrittenColumns>;
    }
}

table! {
    /// jsonl: names that the file uses for the columns below; if the file has another column with the original name, that
    /// one is renamed
    pub struct WrittenColumns at "data.columns": Form::Table, example { prompt = "question" } {
        /// the prompt
        prompt: String, Form::Text, default "\"prompt\"", example "question";
        /// the answer to learn
        completion: String, Form::Text, default "\"completion\"", example "response";
        /// whole conversations
        messages: String, Form::Text, default "\"messages\"", example "conversation";
        /// the better of two answers
        chosen: String, Form::Text, default "\"chosen\"", example "better";
        /// the worse of two answers
        rejected: String, Form::Text, default "\"rejected\"", example "worse";
        /// whether an answer is desirable: true, false, 1 or 0
        label: String, Form::Text, default "\"label\"", example "liked";
        /// the expected answer to a prompt, for evaluation and rewards
        answer: String, Form::Text, default "\"answer\"", example "solution";
        /// by how much the chosen answer is better
        margin: String, Form::Text, default "\"margin\"", example "score_gap";
    }
}

/// Why no other source reads these keys.
pub const ALONE: &str = "only source = \"jsonl\" reads it";

/// Rows of JSON lines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Jsonl {
    /// Files, folders or globs.
    pub path: Vec<String>,
    /// What to evaluate on.
    #[serde(flatten)]
    pub held_out: HeldOut,
    /// The column by whose values whole groups are held out; absent: the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_column: Option<String>,
    /// "tokenizer", "plain", a file, or Jinja itself; absent: rows of messages use the tokenizer's template, or
    /// plain, and strings are joined unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// The most positions of a row; absent: the model's context length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// How longer rows are truncated; absent: the default of their kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncation: Option<Truncation>,
    /// What follows each segment of a completion that is a list of texts; absent: a line break.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_separator: Option<String>,
    /// Columns that have other names in the files.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
}

impl DataSource for Jsonl {
    fn has_rows(&self, _kind: RowKind) -> bool {
        true
    }

    fn usual_kind(&self) -> DataKind {
        DataKind::PROMPT_COMPLETION
    }

    fn unused(&self, kind: Option<RowKind>) -> Vec<(&'static str, String)> {
        let mut unused = Vec::new();
        if kind == Some(RowKind::PromptCompletion) {
            return unused;
        }
        if self.truncation == Some(Truncation::Right) {
            let why = "\"right\" would remove answers or the end of prompts; choose \"left\" or \"drop\"";
            unused.push(("data.truncation", why.to_owned()));
        }
        if self.segment_separator.is_some() {
            let why = "unused: only completions may be lists of segments; leave it out";
            unused.push(("data.segment_separator", why.to_owned()));
        }
        unused
    }

    fn holds_out(&self) -> bool {
        !self.held_out.is_nothing()
    }

    fn text(&self, _seed: u64) -> Result<Corpus> {
        Err(DataError::Option("rows are not running text".into()))
    }

    fn rows(&self, kind: RowKind, _seed: u64) -> Result<RowCorpus> {
        let (eval_paths, split) = match (&self.held_out, &self.group_column) {
            (HeldOut::Fraction { held_out }, None) => (Vec::new(), Split::Share(*held_out)),
            (HeldOut::Fraction { held_out }, Some(column)) => {
                (Vec::new(), Split::Groups { share: *held_out, column: column.clone() })
            }
            (HeldOut::Files { eval_path }, _) => (eval_path.clone(), Split::Share(0.0)),
            (HeldOut::Column { split_column }, _) => (Vec::new(), Split::Column(split_column.clone())),
        };
        let separator = self.separator().to_owned();
        RowOptions { paths: self.path.clone(), eval_paths, split, columns: self.columns.clone(), separator }.read(kind)
    }

    fn writing(&self) -> Writing<'_> {
        let Jsonl { chat_template, truncation, max_length, .. } = self;
        Writing { chat_template: chat_template.as_deref(), truncation: *truncation, max_length: *max_length }
    }

    fn separator(&self) -> &str {
        self.segment_separator.as_deref().unwrap_or(SEPARATOR)
    }

    fn split_columns(&self) -> Vec<String> {
        let split = match &self.held_out {
            HeldOut::Column { split_column } => Some(split_column),
            HeldOut::Fraction { .. } | HeldOut::Files { .. } => None,
        };
        self.group_column.iter().chain(split).cloned().collect()
    }
}

/// Resolves the keys of files and its own.
pub fn resolve(of_files: &files::Written, written: Written, notes: &mut Notes<'_>) -> Jsonl {
    let path = files::path(of_files, "jsonl", "rows.jsonl", notes);
    for (key, there) in [("eval_path", of_files.eval_path.is_some()), ("split_column", written.split_column.is_some())]
    {
        let why = format!("data.{key} already selects the held-out rows; remove it or data.group_column");
        notes.unused("data.group_column", &written.group_column.as_ref().filter(|_| there), &why);
    }
    Jsonl {
        held_out: files::held_out(of_files, written.split_column, notes),
        path,
        group_column: written.group_column,
        chat_template: written.chat_template,
        max_length: written.max_length,
        truncation: written.truncation,
        segment_separator: written.segment_separator,
        columns: columns(written.columns, notes),
    }
}

/// Refuses two columns that come from the same one.
fn columns(written: Option<WrittenColumns>, notes: &mut Notes<'_>) -> Columns {
    let written = written.unwrap_or_default();
    let given = [
        ("prompt", written.prompt),
        ("completion", written.completion),
        ("messages", written.messages),
        ("chosen", written.chosen),
        ("rejected", written.rejected),
        ("label", written.label),
        ("answer", written.answer),
        ("margin", written.margin),
    ];
    let columns: Columns = given.into_iter().filter_map(|(name, from)| Some((name.to_owned(), from?))).collect();
    for (name, from) in &columns {
        if let Some((other, _)) = columns.iter().find(|(other, also)| *other < name && *also == from) {
            notes
                .refuse(&format!("data.columns.{name}"), format!("\"{from}\" is already used by data.columns.{other}"));
        }
    }
    columns
}
