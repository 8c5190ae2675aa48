//! How held-out data is chosen.

use serde::Serialize;

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

impl HeldOut {
    /// Whether nothing is held out.
    pub fn is_nothing(&self) -> bool {
        *self == HeldOut::Fraction { held_out: 0.0 }
    }
}
