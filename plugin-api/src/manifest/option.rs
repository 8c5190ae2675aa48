//! A plugin's options.

use serde::{Deserialize, Serialize};

/// One option of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OptionSpec {
    /// Its key in the experiment file.
    pub name: String,
    /// `bool`, `int`, `float`, `string`, `float list` or `string list`.
    pub kind: String,
    /// Its value if the file has none; null: the option is required.
    #[serde(default)]
    pub default: serde_json::Value,
    /// Smallest legal number.
    #[serde(default)]
    pub min: Option<f64>,
    /// Largest legal number.
    #[serde(default)]
    pub max: Option<f64>,
    /// The legal strings; empty: any.
    #[serde(default)]
    pub choices: Vec<String>,
    /// What it does, in one sentence.
    pub meaning: String,
}
