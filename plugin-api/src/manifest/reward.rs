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
    /// Named numbers that [`rate`](crate::reward::Reward::rate) returns for every sample, besides the score. Objectives read each
    /// as `reward.NAME.PART`, and rollouts report its mean.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<RewardPart>,
    /// [`rate`](crate::reward::Reward::rate) returns numbers for passages of the text, which objectives read as
    /// `reward.NAME.token`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spans: bool,
    /// Features of a later version of the contract, as [`Requirements::features`](super::Requirements::features).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// A named number of a reward besides its score.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardPart {
    /// Its name: letters, digits, `_` and `-`; neither a number nor `token`, and not beginning with `host_`.
    pub name: String,
    /// What it is, in one sentence.
    pub meaning: String,
}

impl RewardPart {
    /// A part's declaration.
    pub fn new(name: &str, meaning: &str) -> Self {
        Self { name: name.into(), meaning: meaning.into() }
    }
}

impl RewardManifest {
    /// Whether it returns more than a score, so that the host calls [`rate`](crate::reward::Reward::rate).
    pub fn rates(&self) -> bool {
        self.spans || !self.parts.is_empty()
    }

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
