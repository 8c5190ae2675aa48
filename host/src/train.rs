//! The training loop, from top to bottom: next batch, forward, statistics, losses and cotangents, backward, `after_step`, learning
//! rate, update or skip, reference, commit, then evaluation, samples and checkpoint.
//!
//! Around it: [`start_and_end`] does what comes before the first and after the last step, [`run`] opens and resumes a run and
//! writes its records, [`learner`] holds the model and everything that trains it, [`step`] has the parts of one step,
//! [`optimizer`](crate::optimizer) updates the weights, [`eval`] evaluates.

pub mod alerts;
pub mod auxiliary;
pub mod dry_run;
pub mod eval;
mod evaluation;
pub mod histogram;
pub mod learner;
pub mod memory;
mod notices;
pub mod opening;
pub mod own_answers;
mod proving;
mod quick_laws;
pub mod roles;
pub mod rollout;
pub mod run;
mod saving;
mod start_and_end;
pub mod step;
pub mod trainer;

use plugin_api::objective::Verdict;
use serde_json::json;

use crate::{
    data::PackedBatch,
    error::Result,
    objectives::Objectives,
    optimizer::kind::Gradient,
    runs::{Interrupt, breadcrumb::CrashMarker, progress::Watch},
    setup::Setup,
};
use learner::Learner;
use rollout::Rollouts;
use run::{
    open,
    records::{Phases, StepLine},
    summary::Summary,
};
use step::gradient::{Route, TrainedModels, WindowLoss, WindowPass};
pub use trainer::Trainer;

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Done,
    /// Early stopping, an alert, or an objective that returned [`Verdict::STOP`].
    Early,
    /// The user interrupted the run; it can be resumed.
    Interrupted,
    /// It was to pause after this step; it can be resumed.
    Paused,
}

impl Trainer {
    /// Opens device, model and records of a run: a new one, or, with `resume`, the one of that name from its last checkpoint.
    ///
    /// # Errors
    /// Request errors, before anything is written; errors of the file system.
    pub fn new(setup: Setup, resume: bool, watch: &Watch) -> Result<Trainer> {
        open::trainer(setup, resume, watch)
    }

    /// Trains until the end, an early stop or an interruption, and writes a checkpoint in each case.
    ///
    /// # Errors
    /// A plugin's or the backend's failure, too many non-finite steps in a row, files that cannot be written. If the state is
    /// consistent, it is saved first, and the error names the checkpoint.
    pub fn run(&mut self, interrupt: &Interrupt) -> Result<(End, Summary)> {
        self.records.emit("start", &self.beginning());
        let outcome = self.train_and_save(interrupt);
        match &outcome {
            Ok((_, summary)) => self.records.emit("end", summary),
            Err(error) => self.records.emit(
                "error",
                &json!({ "step": self.state.step, "error": error.report().lines().collect::<Vec<_>>() }),
            ),
        }
        self.record_end(outcome.as_ref().map(|(end, _)| *end));
        outcome
    }

    fn train_and_save(&mut self, interrupt: &Interrupt) -> Result<(End, Summary)> {
        let end = self.train_loop(interrupt).map_err(|error| self.save_after(error))?;
        let saved = self.save()?;
        self.progress.finish();
        Ok((end, self.summary(saved)))
    }

    /// Trains from the state's step to the last one, then evaluates and samples the trained model.
    fn train_loop(&mut self, interrupt: &Interrupt) -> Result<End> {
        if !self.before_first_step(interrupt)? {
            return Ok(End::Interrupted);
        }
        while self.state.step < self.state.total && !self.state.stopped {
            if interrupt.requested() {
                return Ok(End::Interrupted);
            }
            if self.setup.pause_after.is_some_and(|last| self.state.step >= last) {
                return Ok(End::Paused);
            }
            let verdict = if self.learner.data_has_ended() { None } else { self.step()? };
            let Some(verdict) = verdict else {
                self.notes_of_rollouts()?;
                self.progress.message(&format!("the data has ended after step {}", self.state.step));
                break;
            };
            // A stop is recorded before the evaluation: if that fails, the saved state must not train on.
            self.state.stopped = verdict == Verdict::STOP || self.alerts.stop().is_some();
            let best = self.evaluate_if(false)?;
            self.sample_if(false)?;
            self.state.stopped = self.is_to_stop(verdict);
            self.save_if(best);
        }
        self.after_last_step()
    }

    /// Runs one optimizer step and returns the objectives' verdict; `None` if the data has ended before it. A non-finite loss or gradient does not update the weights; the
    /// reference is updated all the same.
    fn step(&mut self) -> Result<Option<Verdict>> {
        // Those of evaluations and samples are not part of a step.
        self.learner.device.take_operation_times();
        let mut phases = Phases::start();
        self.marker.step(self.state.step + 1);
        let Some(window) = self.learner.next_window(self.state.step, &self.marker)? else { return Ok(None) };
        phases.end("data");
        self.prove(&window)?;

        let (out, gradient) = self.learner.gradient(&window, &self.marker)?;
        phases.end("gradient");

        // Before the update: if a plugin fails here, the state after the previous step is still consistent.
        let verdict = self.after_step(&out.of_objectives)?;
        self.marker.backend("update");
        let lr = self.learner.learning_rate(self.state.step, self.state.total);
        let finite = out.loss.is_finite() && gradient.finite;
        self.mid_step = true;
        if finite {
            self.learner.update(lr, self.state.step + 1)?;
        } else {
            self.learner.update_reference(self.state.step + 1)?;
        }
        phases.end("optimizer");
        self.operations.add(phases.total(), &self.learner.device.take_operation_times());

        let context = self.learner.context(self.state.step);
        self.commit(out.tokens);
        let line = StepLine { step: self.state.step, lr, gradient, finite, context, out: &out };
        let line = self.records.step(&line, &phases, self.learner.device.memory())?;
        self.watch(&line)?;
        self.record_operations(false)?;
        let answers = self.learner.rollouts.as_mut().map(Rollouts::take_first_answers).unwrap_or_default();
        self.records.answers(self.state.step, &answers)?;
        let distributions = self.learner.rollouts.as_mut().map(Rollouts::take_distributions).unwrap_or_default();
        self.records.distributions(self.state.step, "train", &distributions)?;
        self.records.done();
        self.mid_step = false;
        self.check_step(&out)?;
        let metrics: Vec<(String, f64)> =
            line.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect();
        self.progress.step(self.state.step, out.loss, &metrics, out.tokens as f64 / phases.total());
        self.count_bad(finite, out.loss, gradient.norm)?;
        Ok(Some(verdict))
    }
}

impl Learner {
    /// Adds the window's gradient to `grads` and returns the loss and the gradient's norm. The weights do not change.
    ///
    /// # Errors
    /// Errors of plugins and of the backend.
    pub fn gradient(&mut self, window: &[PackedBatch], marker: &CrashMarker) -> Result<(WindowLoss, Gradient)> {
        marker.backend("forward and backward");
        self.model.zero(&self.grads)?;
        self.roles.zero()?;
        let mut out = self.accumulate(window, marker)?;
        self.accumulate_auxiliary(&mut out, marker)?;
        let mut gradient = self.optimizer.measure(&self.grads)?;
        if let Some(critic) = self.roles.measure()? {
            gradient.finite &= critic.finite;
            out.metrics.push(("critic/grad_norm".to_owned(), critic.norm));
        }
        out.metrics.extend(self.rollouts.iter_mut().flat_map(Rollouts::take_metrics));
        Ok((out, gradient))
    }
}

impl TrainedModels<'_> {
    /// Adds the gradient of the window's total loss to the models' gradients.
    ///
    /// # Errors
    /// Errors of plugins and of the backend. The gradients are then undefined.
    pub fn accumulate(
        &self,
        objectives: &mut Objectives,
        window: &[PackedBatch],
        marker: &CrashMarker,
    ) -> Result<WindowLoss> {
        let mut pass = WindowPass::prepare(self, objectives, window, marker)?;
        match pass.route() {
            Route::StatisticsFirst => {
                for micro_batch in pass.micro_batches() {
                    let forward = pass.forward(&micro_batch)?;
                    let losses = pass.losses(&forward.batch, &micro_batch)?;
                    let cotangents = pass.cotangents(&losses, &micro_batch)?;
                    pass.backward(forward, &cotangents)?;
                }
            }
            Route::KnownCotangents => {
                for micro_batch in pass.micro_batches() {
                    pass.known_cotangents(&micro_batch)?;
                }
            }
            Route::Coupled => pass.coupled()?,
        }
        Ok(pass.total())
    }
}
