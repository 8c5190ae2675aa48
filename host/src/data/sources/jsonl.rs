//! The source `jsonl`: rows of JSON lines, of the kind that the first objective requires.

use plugin_api::manifest::DataKind;
use serde::Serialize;

use super::{
    data_source::{DataSource, Writing},
    held_out::HeldOut,
};
use crate::data::{
    corpus::Corpus,
    error::{DataError, Result},
    rows::{Columns, RowCorpus, RowKind, RowOptions, Truncation, split::Split},
};

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
    /// The most positions of a row; absent: the model's context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// How longer rows are truncated; absent: the default of their kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncation: Option<Truncation>,
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
        if self.truncation != Some(Truncation::Right) || kind == Some(RowKind::PromptCompletion) {
            return Vec::new();
        }
        let why = "\"right\" would cut off what is judged or asked; choose \"left\" or \"drop\"";
        vec![("data.truncation", why.to_owned())]
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
        RowOptions { paths: self.path.clone(), eval_paths, split, columns: self.columns.clone() }.read(kind)
    }

    fn writing(&self) -> Writing<'_> {
        let Jsonl { chat_template, truncation, max_length, .. } = self;
        Writing { chat_template: chat_template.as_deref(), truncation: *truncation, max_length: *max_length }
    }

    fn split_columns(&self) -> Vec<String> {
        let split = match &self.held_out {
            HeldOut::Column { split_column } => Some(split_column),
            HeldOut::Fraction { .. } | HeldOut::Files { .. } => None,
        };
        self.group_column.iter().chain(split).cloned().collect()
    }
}
