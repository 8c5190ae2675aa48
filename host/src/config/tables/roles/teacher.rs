//! `[teacher]`: a frozen model that the policy learns from. Whether an objective reads it is known only once its plugin is loaded,
//! and is checked then.

use serde::Serialize;

use crate::keys::notes::Notes;
use crate::keys::{Form, table};

table! {
    /// the frozen model whose predictions the policy learns from, if an objective reads it
    pub struct Written at "teacher": Form::Table, example { from = "runs/large" } {
        /// a run, a checkpoint or a Hugging Face folder; its tokenizer and number of ids must be the policy's, its shape may be
        /// another; its context must hold every row
        from: String, Form::Text, example "runs/large";
    }
}

/// `[teacher]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Teacher {
    /// The model's folder.
    pub from: String,
}

/// Resolves `[teacher]`.
pub fn resolve(written: Written, notes: &mut Notes<'_>) -> Option<Teacher> {
    if written.from.is_none() {
        notes.missing(
            "teacher.from",
            "the model that the policy learns from is needed; for example from = \"runs/large\"",
        );
    }
    Some(Teacher { from: written.from? })
}
