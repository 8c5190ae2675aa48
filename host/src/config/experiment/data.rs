//! The training data and the held-out data.

use serde::Serialize;

pub use crate::data::rows::columns::Columns;
pub use crate::data::rows::truncation::Truncation;

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum Data {
    /// UTF-8 files.
    Text {
        /// Files, folders or globs.
        path: Vec<String>,
        /// What to evaluate on.
        #[serde(flatten)]
        held_out: HeldOut,
    },
    /// Rows of JSON lines, of the kind that the first objective requires.
    Jsonl {
        /// Files, folders or globs.
        path: Vec<String>,
        /// What to evaluate on.
        #[serde(flatten)]
        held_out: HeldOut,
        /// The column by whose values whole groups are held out; absent: the prompt.
        #[serde(skip_serializing_if = "Option::is_none")]
        group_column: Option<String>,
        /// "tokenizer", "plain", a file, or Jinja itself; absent: rows of messages use the tokenizer's template, or
        /// plain, and strings are joined unchanged.
        #[serde(skip_serializing_if = "Option::is_none")]
        chat_template: Option<String>,
        /// The most positions of a row; absent: the model's context.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_length: Option<usize>,
        /// How longer rows are truncated; absent: the default of their kind.
        #[serde(skip_serializing_if = "Option::is_none")]
        truncation: Option<Truncation>,
        /// Columns that have other names in the files.
        #[serde(skip_serializing_if = "Columns::is_empty")]
        columns: Columns,
    },
    /// The generated world of small tasks, in which a tenth of the prompts is reserved for held-out examples.
    Synthetic {
        /// How many examples.
        rows: u64,
        /// How many held-out examples.
        held_out_rows: u64,
        /// Which tasks, in the order of [`crate::config::schema::TASKS`].
        tasks: Vec<String>,
        /// Whether the two answers of every pair have the same length.
        equal_length: bool,
        /// The share of demonstrations whose answer is flawed, from 0 to 1.
        flawed: f64,
    },
}

/// How held-out data is chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum HeldOut {
    /// A fraction of the text or of the prompts, from 0 (nothing) to below 1.
    Fraction {
        /// The fraction.
        held_out: f64,
    },
    /// Separate files.
    Files {
        /// Files, folders or globs.
        eval_path: Vec<String>,
    },
    /// Rows for which a column says so.
    Column {
        /// Its name.
        split_column: String,
    },
}
