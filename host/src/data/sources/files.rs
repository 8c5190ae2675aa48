//! Keys of sources that read files: which files, and how held-out data is chosen.

use std::ops::Bound::{Excluded, Included};

use serde::Serialize;

use crate::keys::notes::Notes;
use crate::keys::{Form, table};

table! {
    /// The keys as written.
    pub struct Written at "data" {
        /// text, jsonl: files, folders or globs, relative to the current directory; or data of the hub (hf:datasets/org/name/path)
        path: Vec<String>, Form::Texts, example "corpus/*.txt";
        /// text, jsonl: fraction held out of training for evaluation; rows are selected by the hash of their prompt, so that a
        /// prompt is never in both parts (synthetic data always holds out a tenth)
        held_out: f64 = 0.1, Form::Float(Included(0.0), Excluded(1.0)), example 0.1;
        /// text, jsonl: files to evaluate on, instead of held_out; training rows with a prompt from these files are left out
        eval_path: Vec<String>, Form::Texts, example "valid.txt";
    }
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
    /// Rows that a column marks.
    Column {
        /// Its name.
        split_column: String,
    },
}

impl HeldOut {
    /// Whether nothing is held out.
    pub fn is_nothing(&self) -> bool {
        *self == HeldOut::Fraction { held_out: 0.0 }
    }
}

/// Resolves `data.path`, which `source` needs; `example` is one for it.
pub fn path(written: &Written, source: &str, example: &str, notes: &mut Notes<'_>) -> Vec<String> {
    if written.path.is_none() && !notes.reported("data.source") {
        notes.missing("data.path", &format!("source = \"{source}\" reads it; for example path = \"{example}\""));
    }
    written.path.clone().unwrap_or_default()
}

/// Resolves how held-out data is chosen; `split_column` only for rows.
pub fn held_out(written: &Written, split_column: Option<String>, notes: &mut Notes<'_>) -> HeldOut {
    let (fraction, eval_path) = (written.held_out.is_some(), written.eval_path.is_some());
    if fraction && eval_path {
        notes.refuse(
            "data.held_out",
            "contradicts data.eval_path: give the files to evaluate on, or a fraction to hold out",
        );
    }
    if split_column.is_some() {
        let why = "contradicts data.split_column, which also selects held-out rows: give one of them";
        for (key, there) in [("data.held_out", fraction), ("data.eval_path", eval_path)] {
            if there {
                notes.refuse(key, why);
            }
        }
    }
    match (&written.eval_path, split_column) {
        (Some(eval_path), _) => HeldOut::Files { eval_path: eval_path.clone() },
        (None, Some(split_column)) => HeldOut::Column { split_column },
        (None, None) => HeldOut::Fraction { held_out: written.held_out() },
    }
}
