//! The interface of every source of data.

use plugin_api::manifest::DataKind;

use crate::data::{
    corpus::Corpus,
    error::Result,
    rows::{Filter, RowCorpus, RowKind, SEPARATOR, Truncation},
};

/// Where an experiment's data comes from: a table of keys that is read as running text or rows.
pub trait DataSource {
    /// Whether it has rows of this kind.
    fn has_rows(&self, kind: RowKind) -> bool;

    /// The kind of data that it yields to objectives for which it has no rows.
    fn usual_kind(&self) -> DataKind;

    /// Its keys that data of this kind (`None`: running text) does not read, each with the reason.
    fn unused(&self, kind: Option<RowKind>) -> Vec<(&'static str, String)>;

    /// Whether anything is held out.
    fn holds_out(&self) -> bool;

    /// The numbers of examples that it generates, by the key that sets the number.
    fn generated(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Reads running text. `seed` is the experiment's.
    ///
    /// # Errors
    /// Files that cannot be read or split; a source without running text.
    fn text(&self, seed: u64) -> Result<Corpus>;

    /// Reads rows of a kind that it has.
    ///
    /// # Errors
    /// Files that cannot be read or split, with the place of the row; a source without rows of this kind.
    fn rows(&self, kind: RowKind, seed: u64) -> Result<RowCorpus>;

    /// How its rows are written and truncated.
    fn writing(&self) -> Writing<'_> {
        Writing::default()
    }

    /// What follows each segment of an answer that is a list of texts.
    fn separator(&self) -> &str {
        SEPARATOR
    }

    /// The columns that decide which rows are held out.
    fn split_columns(&self) -> Vec<String> {
        Vec::new()
    }
}

/// How rows are written and truncated.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Writing<'a> {
    /// "tokenizer", "plain", a file, or Jinja itself; `None`: messages use the tokenizer's template, or plain, and strings are
    /// joined unchanged.
    pub chat_template: Option<&'a str>,
    /// How longer rows are truncated; `None`: the default of their kind.
    pub truncation: Option<Truncation>,
    /// The most positions of a row; `None`: the model's context length.
    pub max_length: Option<usize>,
    /// The lengths of rows that are kept.
    pub filter: Filter,
}

/// What batches of this kind of data are counted in.
pub fn comes_in(kind: Option<RowKind>) -> &'static str {
    match kind {
        Some(RowKind::Preference) => "pairs",
        Some(RowKind::Prompt) => "prompts",
        _ => "sequences",
    }
}
