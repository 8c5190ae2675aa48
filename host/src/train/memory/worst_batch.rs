//! Computes the worst micro-batch of an experiment before step 1, so that a run without enough memory fails there.
//!
//! It is a real batch: the longest rows that the data has, with every array that batches carry, through the objectives'
//! `compose`, `prepare` and `loss`, and back with the cotangents that they return. Prompts get made-up answers of the longest
//! length. The states of the objectives are restored; the place in the data order does not change, and no random number is
//! drawn.

use super::largest_rows::Rows;
use crate::{
    config::experiment::Batch,
    data::{PackedBatch, Sequence, Window},
    error::{Error, Result},
    generate,
    objectives::micro_batch::{cut, cut_answers},
    runs::breadcrumb::CrashMarker,
    train::{
        learner::Learner,
        rollout::{RolloutModels, Rollouts},
        step::gradient::TrainedModels,
    },
};

impl Learner {
    /// Computes the worst micro-batch forward and backward. The gradients are undefined afterwards.
    ///
    /// # Errors
    /// Errors of plugins and of the backend, with the plugin and its call; lack of memory, with its purpose.
    pub fn try_worst_batch(&mut self, marker: &CrashMarker) -> Result<()> {
        let held = self.hold_generation(marker);
        self.device.trim();
        let tried = held.and_then(|()| self.try_all(self.micro_batch_tokens, marker));
        tried.map_err(described)?;
        self.device.trim();
        marker.host();
        Ok(())
    }

    /// Computes a batch of the longest rows, forward and backward: at most `most` positions, or one row if it is longer.
    /// Returns its number of positions. The gradients are undefined afterwards.
    ///
    /// # Errors
    /// As [`Learner::try_worst_batch`].
    pub fn try_batch(&mut self, most: usize, marker: &CrashMarker) -> Result<usize> {
        let most = most.min(self.micro_batch_tokens);
        let positions = self.try_all(most, marker).map_err(described)?;
        marker.host();
        Ok(positions)
    }

    fn try_all(&mut self, most: usize, marker: &CrashMarker) -> Result<usize> {
        marker.host();
        let states = self.objectives.states()?;
        let micro_batches = self.worst_window(most, marker)?;
        self.accumulate(&micro_batches, marker)?;
        self.objectives.put_back(states)?;
        let (model, roles, grads, recompute) = (&self.model, &self.roles, &self.grads, self.recompute);
        for one in &mut self.auxiliary {
            let states = one.objectives.states()?;
            let micro_batches = one.worst_window(most)?;
            let trained = TrainedModels { models: roles.models(model), recompute, grads };
            trained.accumulate(&mut one.objectives, &micro_batches, marker)?;
            one.objectives.put_back(states)?;
        }
        Ok(micro_batches.iter().map(PackedBatch::len).sum())
    }

    /// Returns a window with the largest possible micro-batch of at most `most` positions. It is one micro-batch, unless an
    /// objective composes longer sequences from its rows. With rollouts, changes the states of the objectives.
    fn worst_window(&mut self, most: usize, marker: &CrashMarker) -> Result<Vec<PackedBatch>> {
        if self.rollouts.is_none() {
            return self.worst_of_rows(most, marker);
        }
        let answers = self.worst_answers(most);
        let Learner { model, roles, objectives, rewards, rollouts, .. } = self;
        let Some(rollouts) = rollouts.as_ref() else { return Ok(Vec::new()) };
        marker.backend("rollout");
        let measured = rollouts.measured(
            answers,
            &mut RolloutModels { models: roles.models(model), objectives, rewards },
            marker,
        )?;
        let whole_groups = objectives.whole_groups();
        cut_answers(&Window::new(measured)?, most, whole_groups)
    }

    /// Returns the worst micro-batch as a window of its own, with the arrays of the data and of `compose`; answers are made up
    /// and not measured.
    ///
    /// # Errors
    /// Errors of plugins.
    pub fn worst_micro_batches(&self, marker: &CrashMarker) -> Result<Vec<PackedBatch>> {
        let most = self.micro_batch_tokens;
        match self.rollouts {
            Some(_) => cut_answers(&Window::new(self.worst_answers(most))?, most, self.objectives.whole_groups()),
            None => self.worst_of_rows(most, marker),
        }
    }

    fn worst_of_rows(&self, most: usize, marker: &CrashMarker) -> Result<Vec<PackedBatch>> {
        let reads_last = self.objectives.needs().reads_last();
        let rows = Rows::of(&self.batcher, self.longest, reads_last, self.settings.batch);
        let plain = Window::new(rows.worst(most))?;
        let positions = plain.positions();
        let compose = |window| self.objectives.compose(window, self.seed, marker);
        let mut window = compose(plain)?;
        if window.positions() < positions {
            // Composed sequences are shorter than their rows, so more rows fit.
            let room = most.saturating_mul(positions) / window.positions().max(1);
            window = compose(Window::new(rows.worst(room))?)?;
        }
        cut(&window, most)
    }

    /// Returns made-up answers to the longest prompts, as many as one micro-batch of `most` positions holds; if the answers to a
    /// prompt may be cut apart, so many more that the first micro-batch is full.
    fn worst_answers(&self, most: usize) -> Vec<Sequence> {
        let Some(rollouts) = &self.rollouts else { return Vec::new() };
        let context = self.model.config().context as usize;
        let rows = Rows::of(&self.batcher, self.longest, false, self.settings.batch);
        let samples = self.samples_of_trial(rollouts, most, context);
        let worst = |most| rows.worst_prompts(most, samples, rollouts.max_new_tokens(), context);
        let more = if self.objectives.whole_groups() { 0 } else { worst(0).1 };
        let (chosen, _) = worst(most.saturating_add(more));
        rollouts.made_up(&rows.read(&chosen), samples, context, &self.objectives, &self.rewards)
    }

    /// Returns how many answers to a prompt are made up: all of them, but no more than fill a micro-batch if they may be cut apart.
    fn samples_of_trial(&self, rollouts: &Rollouts, most: usize, context: usize) -> usize {
        if self.objectives.whole_groups() {
            return rollouts.samples();
        }
        let filling = most.div_ceil(rollouts.max_new_tokens().min(context).max(1));
        let least = self.objectives.iter().map(|active| active.requirements.samples as usize).max().unwrap_or(1);
        rollouts.samples().min(filling.max(least))
    }

    /// Returns the token ids of the longest prompts of a rollout of `count` prompts.
    pub fn longest_prompts(&self, count: usize) -> Vec<Vec<i32>> {
        let rows =
            Rows { batch: Batch::Prompts(count), ..Rows::of(&self.batcher, self.longest, false, self.settings.batch) };
        let ids = |prompt: Sequence| prompt.ids.iter().map(|id| *id as i32).collect();
        rows.worst(usize::MAX).into_iter().map(ids).collect()
    }

    /// Runs a rollout's generation as far as the point where it uses the most memory.
    fn hold_generation(&self, marker: &CrashMarker) -> Result<()> {
        let Some(rollouts) = &self.rollouts else { return Ok(()) };
        marker.backend("generation");
        let prompts = self.longest_prompts(rollouts.prompts());
        let repeated: Vec<Vec<i32>> = prompts.iter().flat_map(|ids| vec![ids.clone(); rollouts.samples()]).collect();
        generate::reach_peak_memory(&self.model, &repeated, rollouts.max_new_tokens())
    }
}

/// Adds to an error that memory ran out, or that a plugin failed in the trial before step 1.
fn described(error: Error) -> Error {
    match error.is_out_of_memory() {
        true => error.context("the largest micro-batch cannot be computed"),
        false => error.with_details(["found by the trial before step 1, in which no weight changes"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::error::Code;

    /// Catches a plugin's error that reads like lack of memory, lack of memory that is blamed on a plugin, and a lost hint.
    #[test]
    fn an_error_begins_with_what_failed() {
        let fault = described(Error::run("kto: `loss`: no array `side`"));
        assert!(fault.report().starts_with("error: kto: `loss`: no array `side`\n  found by the trial before step 1"));
        let memory = Error::from(plugin_api::Error::new(Code::OUT_OF_MEMORY, "alloc: 9 elements of f32"));
        let report = described(memory).report();
        assert!(report.starts_with("error: the largest micro-batch cannot be computed\n"), "{report}");
        assert!(report.contains("help: lower train.micro_batch_tokens"), "{report}");
    }
}
