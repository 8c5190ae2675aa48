//! Evaluation: losses on held-out data, exact match, answers scored by rewards, and the names and expected values of the
//! metrics.

pub mod exact_match;
pub(crate) mod expectations;
pub mod generation;
pub mod held_out;
pub(crate) mod improve;
pub(crate) mod metric_names;

/// Metrics of an evaluation, by name without the prefix `eval/`; `loss` comes first.
pub type Figures = Vec<(String, f64)>;
