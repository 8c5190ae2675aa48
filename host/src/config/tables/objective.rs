//! `[[objective]]`: what is minimised.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::keys::notes::Notes;
use crate::keys::tree::keys_of;
use crate::keys::{Form, table};

table! {
    /// the loss to minimise: one table, or several [[objective]]; further keys are options of the plugin
    pub struct Written at "objective": Form::Plugins, example { plugin = "ce" } {
        /// id of the objective plugin
        plugin: String, Form::Text, example "ce";
        /// weight of this loss in the total loss
        weight: f64 = 1.0, Form::FROM_ZERO, example 0.5;
        /// separate running text for an objective that learns from text while the first objective learns from rows, such as a
        /// pre-training term
        text: Vec<String>, Form::Texts, default "the synthetic world's text, with synthetic data", example "corpus/*.txt";
        /// tokens of that text per step
        tokens: usize, Form::POSITIONS, example 2048;
    }
}

/// One `[[objective]]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Objective {
    /// Id of the plugin.
    pub plugin: String,
    /// Factor in the sum.
    pub weight: f64,
    /// Running text for this objective alone, if it learns from text while the first objective learns from rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Vec<String>>,
    /// Number of tokens of that text per step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// The plugin's own options: empty here, checked and completed with defaults once the plugin is loaded.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

/// Resolves all `[[objective]]`.
pub fn resolve(written: Vec<Written>, notes: &mut Notes<'_>) -> Vec<Objective> {
    if written.is_empty() {
        notes.missing("objective", "an experiment needs at least one; for example [objective] with plugin = \"ce\"");
    }
    let keys = keys_of("objective", notes.root, written.len());
    let mut resolved = Vec::new();
    for (objective, key) in written.into_iter().zip(keys) {
        if objective.plugin.is_none() {
            notes.missing(
                &format!("{key}.plugin"),
                "the id of an objective plugin is needed; for example plugin = \"ce\"",
            );
        }
        resolved.push(Objective {
            weight: objective.weight(),
            plugin: objective.plugin.unwrap_or_default(),
            text: objective.text,
            tokens: objective.tokens,
            options: Default::default(),
        });
    }
    if !resolved.is_empty() && resolved.iter().all(|objective| objective.weight == 0.0) {
        notes.refuse("objective", "every weight is 0: there is nothing to minimise");
    }
    resolved
}
