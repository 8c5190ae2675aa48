//! The optimizer step that the objectives' calls belong to. Every batch that a plugin gets is completed here.

use plugin_api::batch::{Batch, Scope, names};

/// The optimizer step that is being computed, and the number of steps of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    step: u64,
    steps: u64,
}

impl Clock {
    /// Returns the clock in step `step` of `steps`, both from 1.
    pub fn at(step: u64, steps: u64) -> Clock {
        Clock { step: step.max(1), steps: steps.max(1) }
    }

    /// Returns the batch with the arrays `step` and `steps`.
    pub fn on<'a>(self, batch: Batch<'a>) -> Batch<'a> {
        let number = |value: u64| vec![value as f64];
        batch.with(names::STEP, Scope::BATCH, number(self.step)).with(names::STEPS, Scope::BATCH, number(self.steps))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::at(1, 1)
    }
}
