//! The source `jsonl`: files of rows, of the kind that the first objective requires.

use std::ops::Bound::{Excluded, Included};

use plugin_api::manifest::DataKind;
use serde::Serialize;

use super::{
    data_source::{DataSource, Writing},
    files::{self, HeldOut},
};
use crate::data::{
    corpus::Corpus,
    error::{DataError, Result},
    rows::{Columns, Filter, Format, RowCorpus, RowKind, RowOptions, RowPart, SEPARATOR, Truncation, split::Split},
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
        /// jsonl: how the columns are read, if several ways are possible: messages, sharegpt, prompt-completion, stepwise, text (all of
        /// it is learned), preference, preference-implicit, hh, unpaired, prompt, alpaca (`instruction`, `input`, `output` as a
        /// conversation), alpaca-template (the same with the template of Stanford's Alpaca), orca, ultrafeedback
        format: Format, Form::Word(Format::WORDS), default "recognised by the columns", example "alpaca";
        columns in Option<WrittenColumns>;
        mix in Vec<WrittenMix>;
        filter in Option<WrittenFilter>;
    }
}

/// Declares the names of columns, of all sources or of one.
macro_rules! column_names {
    ($(#[doc = $note:literal])* $Name:ident at $path:literal) => {
        table! {
            $(#[doc = $note])*
            pub struct $Name at $path: Form::Table, example { prompt = "question" } {
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
                /// a text of which everything is learned
                text: String, Form::Text, default "\"text\"", example "content";
                /// of Alpaca's form: the instruction
                instruction: String, Form::Text, default "\"instruction\"", example "task";
                /// of Alpaca's form: what the instruction is applied to
                input: String, Form::Text, default "\"input\"", example "context";
                /// of Alpaca's form: the answer
                output: String, Form::Text, default "\"output\"", example "target";
                /// of Orca's form: the question
                question: String, Form::Text, default "\"question\"", example "query";
                /// of Orca's form: the answer
                response: String, Form::Text, default "\"response\"", example "reply";
                /// of Orca's and Alpaca's form: the system prompt
                system: String, Form::Text, default "\"system\"", example "persona";
            }
        }

        impl $Name {
            /// Each column with its name in the files.
            fn names(self) -> Vec<(&'static str, Option<String>)> {
                vec![
                    ("prompt", self.prompt),
                    ("completion", self.completion),
                    ("messages", self.messages),
                    ("chosen", self.chosen),
                    ("rejected", self.rejected),
                    ("label", self.label),
                    ("answer", self.answer),
                    ("margin", self.margin),
                    ("text", self.text),
                    ("instruction", self.instruction),
                    ("input", self.input),
                    ("output", self.output),
                    ("question", self.question),
                    ("response", self.response),
                    ("system", self.system),
                ]
            }
        }
    };
}

column_names! {
    /// jsonl: names that the file uses for the columns below; if the file has another column with the original name, that
    /// one is renamed to original_NAME. Every source has every column that is named for it
    WrittenColumns at "data.columns"
}

column_names! {
    /// names that this source's files use for the columns below, instead of data.columns
    WrittenMixColumns at "data.mix.columns"
}

table! {
    /// jsonl: several sources instead of data.path. An epoch has as many rows as all of them together, and each source contributes its
    /// share by weight: a source with more weight than rows is repeated, one with less is read over several epochs; the order
    /// follows from seed
    pub struct WrittenMix at "data.mix": Form::Tables, default "[]",
        example [{ path = "chat.parquet", weight = 3 }, { path = "math/*.jsonl", weight = 1 }] {
        /// files, folders or globs, as in data.path
        path: Vec<String>, Form::Texts, example "math/*.jsonl";
        /// how many rows of this source are read in proportion to those of the others
        weight: f64 = 1.0, Form::Float(Excluded(0.0), Included(1e9)), example 3;
        /// how this source's columns are read, as in data.format
        format: Format, Form::Word(Format::WORDS), default "data.format", example "alpaca";
        columns in Option<WrittenMixColumns>;
    }
}

table! {
    /// jsonl: rows of other lengths are dropped, before anything is truncated, and counted. The length is that of the whole row
    /// (prompt and answer, as the template writes them); of a pair, that of each answer with its prompt
    pub struct WrittenFilter at "data.filter": Form::Table, default "none", example { max_tokens = 2048 } {
        /// the fewest tokens
        min_tokens: usize, Form::Int(1, 1 << 30), default "none", example 8;
        /// the most tokens
        max_tokens: usize, Form::Int(1, 1 << 30), default "none", example 2048;
        /// the fewest characters
        min_chars: usize, Form::Int(1, 1 << 40), default "none", example 20;
        /// the most characters
        max_chars: usize, Form::Int(1, 1 << 40), default "none", example 20000;
    }
}

/// Why no other source reads these keys.
pub const ALONE: &str = "only source = \"jsonl\" reads it";

/// Rows of JSON lines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Jsonl {
    /// Files, folders or globs; empty if there is a mixture.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    /// Weighted sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<Mixed>,
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
    /// How columns are read; absent: recognised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Columns that have other names in the files.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
    /// The lengths of rows that are kept.
    #[serde(skip_serializing_if = "Filter::is_empty")]
    pub filter: Filter,
}

/// A source of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mixed {
    /// Files, folders or globs.
    pub path: Vec<String>,
    /// Its weight.
    pub weight: f64,
    /// How its columns are read; absent: recognised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Columns that have other names in its files.
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
        let (paths, columns) = (self.path.clone(), self.columns.clone());
        let part = |own: &Mixed| {
            let Mixed { path, weight, format, columns } = own.clone();
            RowPart { paths: path, weight, format, columns }
        };
        let mix = self.mix.iter().map(part).collect();
        let format = self.format;
        RowOptions { paths, mix, eval_paths, split, columns, format, separator, named_by: None }.read(kind)
    }

    fn writing(&self) -> Writing<'_> {
        let Jsonl { chat_template, truncation, max_length, filter, .. } = self;
        let (truncation, max_length, filter) = (*truncation, *max_length, *filter);
        Writing { chat_template: chat_template.as_deref(), truncation, max_length, filter }
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
    let path = match written.mix.is_empty() {
        true => files::path(of_files, "jsonl", "rows.jsonl", notes),
        false => {
            notes.unused("data.path", &of_files.path, "data.mix names the files; give one of them");
            Vec::new()
        }
    };
    let (format, own) = (written.format, columns("data.columns", written.columns.map(WrittenColumns::names), notes));
    let mix = mix(written.mix, format, &own, notes);
    let filter = filter(written.filter, notes);
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
        format,
        columns: own,
        mix,
        filter,
    }
}

/// Resolves the sources of a mixture; `format` and `columns` are those of sources without their own.
fn mix(written: Vec<WrittenMix>, format: Option<Format>, common: &Columns, notes: &mut Notes<'_>) -> Vec<Mixed> {
    let mut mix = Vec::new();
    for (index, source) in written.into_iter().enumerate() {
        let (key, weight) = (format!("data.mix.{index}"), source.weight());
        if source.path.is_none() {
            notes.missing(&format!("{key}.path"), "the files of the source; for example path = \"math/*.jsonl\"");
        }
        let names = source.columns.map(WrittenMixColumns::names);
        let has_own = names.is_some();
        let own = columns(&format!("{key}.columns"), names, notes);
        mix.push(Mixed {
            path: source.path.unwrap_or_default(),
            weight,
            format: source.format.or(format),
            columns: if has_own { own } else { common.clone() },
        });
    }
    mix
}

/// Resolves the limits of lengths.
fn filter(written: Option<WrittenFilter>, notes: &mut Notes<'_>) -> Filter {
    let WrittenFilter { min_tokens, max_tokens, min_chars, max_chars } = written.unwrap_or_default();
    for (name, least, most) in [("tokens", min_tokens, max_tokens), ("chars", min_chars, max_chars)] {
        if let (Some(least), Some(most)) = (least, most)
            && least > most
        {
            let why =
                format!("{least} is more than data.filter.max_{name} = {most}, so that every row would be dropped");
            notes.refuse(&format!("data.filter.min_{name}"), why);
        }
    }
    Filter { min_tokens, max_tokens, min_chars, max_chars }
}

/// Refuses two columns of the table at `key` that come from the same one.
fn columns(key: &str, written: Option<Vec<(&'static str, Option<String>)>>, notes: &mut Notes<'_>) -> Columns {
    let given = written.unwrap_or_default().into_iter();
    let columns: Columns = given.filter_map(|(name, from)| Some((name.to_owned(), from?))).collect();
    for (name, from) in &columns {
        if let Some((other, _)) = columns.iter().find(|(other, also)| *other < name && *also == from) {
            notes.refuse(&format!("{key}.{name}"), format!("\"{from}\" is already used by {key}.{other}"));
        }
    }
    columns
}
