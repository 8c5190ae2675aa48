//! Evaluation: losses over held-out data, exact match, answers scored by rewards, and the names and expectations of their figures.

pub mod exact_match;
pub(crate) mod expectations;
pub mod generation;
pub mod held_out;
pub(crate) mod improve;
pub(crate) mod metric_names;

/// Figures of an evaluation, by name without the `eval/` before it, `loss` first.
pub type Figures = Vec<(String, f64)>;
