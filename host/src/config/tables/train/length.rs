//! The length of a run: `train.steps` or `train.epochs`.

use serde::Serialize;

use crate::keys::notes::Notes;

/// The length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// Optimizer steps.
    Steps(u64),
    /// Passes over the training data.
    Epochs(f64),
}

/// Resolves `train.steps` and `train.epochs`.
pub fn resolve(steps: Option<u64>, epochs: Option<f64>, notes: &mut Notes<'_>) -> Length {
    match (steps, epochs) {
        (Some(_), Some(_)) => {
            notes.refuse("train.epochs", "contradicts train.steps: give one of them");
            Length::Steps(0)
        }
        (Some(steps), None) => Length::Steps(steps),
        (None, Some(epochs)) => Length::Epochs(epochs),
        (None, None) => {
            if !notes.reported("train.epochs") {
                notes.missing("train.steps", "give steps = 500 or epochs = 1");
            }
            Length::Steps(u64::MAX)
        }
    }
}
