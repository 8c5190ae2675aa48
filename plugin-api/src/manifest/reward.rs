//! A reward's description of itself.

use super::{names::ColumnValue, option::OptionSpec};
use serde::{Deserialize, Serialize};

/// A reward's description of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardManifest {
    /// Its name in experiment files.
    pub id: String,
    /// Its own version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// Columns that it reads from every row, each with a text (not empty) or a number. The host refuses data without them.
    pub columns: Vec<String>,
    /// Options.
    pub options: Vec<OptionSpec>,
    /// Columns with more detail: the option that names one, and the type of its values. An entry replaces the one of the same name
    /// in `columns`.
    pub reads: Vec<RewardColumn>,
}

impl RewardManifest {
    /// All declared columns, from `columns` and `reads`.
    pub fn declared_columns(&self) -> Vec<RewardColumn> {
        let plain = |name: &String| RewardColumn { name: name.clone(), ..RewardColumn::default() };
        let is_plain = |name: &&String| self.reads.iter().all(|column| column.name != **name);
        self.columns.iter().filter(is_plain).map(plain).chain(self.reads.iter().cloned()).collect()
    }
}

/// A column that a reward reads from every row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardColumn {
    /// Its name; with an option, the option's default value.
    pub name: String,
    /// The option whose value is the column's name; empty if no option names it.
    pub option: String,
    /// The type of its values.
    pub value: ColumnValue,
    /// Whether an empty text is allowed.
    pub may_be_empty: bool,
}
