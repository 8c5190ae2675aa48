//! The data order of an experiment.

use super::Setup;
use crate::{
    config::experiment::{Batch, Length},
    data::{BatchSize, Batcher, BatcherOptions, TrainingData},
    error::Result,
};

impl Setup {
    /// Returns the data order of the run and its number of optimizer steps.
    ///
    /// # Errors
    /// A request error for an impossible batch.
    pub fn batcher(&self, data: &TrainingData) -> Result<(Batcher, u64)> {
        self.check_window(data)?;
        let experiment = self.experiment();
        let batch = match experiment.train.batch {
            // The batcher returns the prompts of a whole rollout.
            Batch::Prompts(n) => BatchSize::Sequences(experiment.rollout.as_ref().map_or(n, |rollout| rollout.prompts)),
            Batch::Sequences(n) | Batch::Pairs(n) => BatchSize::Sequences(n),
            Batch::Tokens(n) => BatchSize::Tokens(n),
        };
        let epochs = match experiment.train.length {
            Length::Steps(_) => None,
            Length::Epochs(epochs) => Some(epochs.ceil().max(1.0) as u64),
        };
        let options = BatcherOptions { seed: experiment.seed, batch, prefix: self.tokenizer.prefix(), epochs };
        let batcher = Batcher::new(data.train.clone(), options)?;
        let steps = match experiment.train.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => {
                let steps_of = |prompts: usize| match (experiment.train.batch, &experiment.rollout) {
                    (Batch::Prompts(n), Some(rollout)) => (rollout.epochs * prompts.div_ceil(n.max(1))) as u64,
                    _ => 1,
                };
                let context = experiment.longest_sequence(self.config.context as usize);
                batcher.windows_of(epochs, context)?.into_iter().map(steps_of).sum()
            }
        };
        Ok((batcher, steps))
    }
}
