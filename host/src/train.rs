//! The training run. [`Trainer::step`] is the training step in the order of the design: packed batch, trunk forward, head
//! statistics, the objectives' losses and cotangents, head and trunk backward, clip and optimizer, metrics, checkpoint.
//!
//! Around it: [`run`] opens and resumes a run and writes its records, [`learner`] holds the model and everything that trains
//! it, [`step`] computes the gradient of one window, [`optimizer`] updates the weights, [`eval`] evaluates.

pub mod auxiliary;
pub mod dry_run;
pub mod eval;
mod evaluation;
pub mod learner;
pub mod memory;
mod notices;
pub mod opening;
pub mod preference_pairs;
mod proving;
mod quick_laws;
pub mod roles;
pub mod rollout;
pub mod run;
mod saving;
pub mod step;
pub mod trainer;

use plugin_api::objective::Verdict;

pub use crate::optimizer;
use crate::{
    error::{Error, Result},
    runs::{Interrupt, progress::Show},
    setup::Setup,
};
use eval::held_out::{held_out, held_out_stretches};
use learner::Learner;
use optimizer::kind::Gradient;
use roles::reference_pass::{PassEnd, RowsRead};
use rollout::Rollouts;
use run::{
    open,
    records::{Phases, StepLine},
    summary::Summary,
};
use step::gradient::WindowLoss;
pub use trainer::Trainer;

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Done,
    /// Early stopping, or an objective returned [`Verdict::STOP`].
    Early,
    /// The user interrupted the run; it can be resumed.
    Interrupted,
}

impl Trainer {
    /// Opens device, model and records of a run: a new one, or, with `resume`, the one of that name from its last checkpoint.
    ///
    /// # Errors
    /// Request errors, before anything is written; errors of the file system.
    pub fn new(setup: Setup, resume: bool, show: Show) -> Result<Trainer> {
        open::trainer(setup, resume, show)
    }

    /// Trains until the end, an early stop or an interruption, and writes a checkpoint in each case.
    ///
    /// # Errors
    /// A plugin's or the backend's failure, too many non-finite steps in a row, files that cannot be written. If the state is
    /// consistent, it is saved first, and the error names the checkpoint.
    pub fn run(&mut self, interrupt: &Interrupt) -> Result<(End, Summary)> {
        let end = self.train_loop(interrupt).map_err(|error| self.save_after(error))?;
        let saved = self.save()?;
        self.progress.finish();
        Ok((end, self.summary(saved)))
    }

    /// Trains, then evaluates and samples the trained model.
    fn train_loop(&mut self, interrupt: &Interrupt) -> Result<End> {
        if !self.score_by_reference(interrupt)? {
            return Ok(End::Interrupted);
        }
        if self.state.step == 0 {
            // The memory check may use rows that the reference did not score: these get log-probabilities of 0 during the check.
            self.reference.iter().for_each(|reference| reference.stand_in(true));
            self.check_memory()?;
            self.reference.iter().for_each(|reference| reference.stand_in(false));
        }
        let Learner { objectives, batcher, .. } = &self.learner;
        let said = notices::at_start(self.experiment(), objectives, batcher, self.learner.context(0))?;
        said.into_iter().try_for_each(|text| self.note(text))?;
        self.prove_next_window()?;
        // Only now: a plugin that fails its checks will be changed and must not be pinned.
        self.setup.lock.save()?;
        // Before the first step, and where the process before this one failed between a step and its evaluation or samples.
        let better = self.evaluate_if(self.state.step == 0)?;
        self.sample_if(false)?;
        if self.state.step > 0 && !self.state.stopped {
            self.state.stopped = self.is_to_stop(Verdict::CONTINUE);
        }
        if better && !self.state.stopped && self.state.step < self.state.total {
            self.save_or_say();
        }
        while self.state.step < self.state.total && !self.state.stopped {
            if interrupt.requested() {
                return Ok(End::Interrupted);
            }
            if self.learner.data_has_ended() {
                self.progress.message(&format!("the data has ended after step {}", self.state.step));
                break;
            }
            let verdict = self.step()?;
            // Set before an evaluation that may fail.
            self.state.stopped = verdict == Verdict::STOP;
            let better = self.evaluate_if(false)?;
            self.sample_if(false)?;
            self.state.stopped = self.is_to_stop(verdict);
            let every = self.experiment().checkpoint.every;
            // The last step's checkpoint is written at the end and includes the last evaluation and samples.
            let last = self.state.stopped || self.state.step == self.state.total;
            if !last && (better || (every > 0 && self.state.step.is_multiple_of(every))) {
                self.save_or_say();
            }
        }
        self.evaluate_if(true)?;
        self.sample_if(true)?;
        self.state.ended = true;
        self.note_unchecked()?;
        let beside = self.learner.beside.iter().flat_map(|beside| beside.objectives.iter());
        let said = self.notices.end(self.learner.objectives.iter().chain(beside));
        said.into_iter().try_for_each(|text| self.note(text))?;
        Ok(if self.state.stopped { End::Early } else { End::Done })
    }

    /// Computes the frozen reference's log-probabilities for all rows that the rest of the run reads, and drops that model.
    /// Returns false if the user interrupts it.
    fn score_by_reference(&mut self, interrupt: &Interrupt) -> Result<bool> {
        let Some(pass) = self.reference.take() else { return Ok(true) };
        let steps = self.state.total.saturating_sub(self.state.step);
        let train = self.learner.batcher.documents_ahead(steps, self.learner.context(self.state.step))?;
        let evaluated = held_out_stretches(&self.setup, &self.data).iter().map(|row| row.document).collect();
        let role = self.learner.roles.reference.as_mut();
        let model = role.and_then(|role| role.model.take());
        let model = model.ok_or_else(|| Error::run("the reference model is not there"))?;
        self.marker.backend("reference pass");
        match pass.run(&model, &RowsRead { train, held_out: evaluated }, &self.progress, interrupt)? {
            PassEnd::Interrupted => return Ok(false),
            PassEnd::Scored(note) => self.progress.message(&note),
        }
        drop(model);
        self.reference = Some(pass);
        self.held_out = held_out(&self.setup, &self.learner.objectives, &self.data)?;
        Ok(true)
    }

    /// One optimizer step.
    fn step(&mut self) -> Result<Verdict> {
        let mut phases = Phases::start();
        let context = self.learner.context(self.state.step);
        self.marker.step(self.state.step + 1);
        let micro_batches = self.learner.window(self.state.step, &self.marker)?;
        phases.end("data");
        self.prove(&micro_batches)?;

        let (out, gradient) = self.learner.gradient(&micro_batches, &self.marker)?;
        phases.end("gradient");

        // Before the update: if a plugin fails here, the state after the previous step is still consistent.
        let verdict = self.after_step(&out.metrics)?;
        self.marker.backend("update");
        let lr = self.learner.learning_rate(self.state.step, self.state.total);
        let finite = out.loss.is_finite() && gradient.finite;
        self.mid_step = true;
        if finite {
            self.learner.update(lr, self.state.step + 1)?;
        } else {
            self.learner.follow(self.state.step + 1)?;
        }
        phases.end("optimizer");

        if let Some(rollouts) = &mut self.learner.rollouts {
            rollouts.commit();
        }
        self.state.data = self.learner.batcher.state().clone();
        self.state.beside = self.learner.beside.iter().map(|beside| beside.batcher.state().clone()).collect();
        self.state.step += 1;
        self.state.tokens += out.tokens;
        self.state.updates = self.learner.optimizer.updates();
        let line = StepLine { step: self.state.step, lr, gradient, finite, context, out: &out };
        self.records.step(&line, &phases, self.learner.device.memory())?;
        let said = self.learner.rollouts.as_mut().map(Rollouts::said).unwrap_or_default();
        self.records.answers(self.state.step, &said)?;
        self.records.done();
        self.mid_step = false;
        if self.state.step == 1 {
            self.check_first_step(&out)?;
        }
        self.notice(&out, gradient)?;
        self.progress.step(self.state.step, out.loss, out.tokens as f64 / phases.total());
        self.count_bad(finite, out.loss, gradient.norm)?;
        Ok(verdict)
    }

    /// Counts consecutive non-finite steps and returns an error at `max_bad_steps`. Such a step does not update the policy.
    fn count_bad(&mut self, finite: bool, loss: f64, norm: f64) -> Result<()> {
        if finite {
            self.state.bad_steps = 0;
            return Ok(());
        }
        self.state.bad_steps += 1;
        self.state.refused += 1;
        let step = self.state.step;
        self.progress
            .message(&format!("step {step}: loss {loss}, gradient norm {norm}: not finite, the update is refused"));
        if self.state.bad_steps < self.experiment().train.max_bad_steps {
            return Ok(());
        }
        Err(Error::run(format!(
            "{} steps in a row were not finite, the last of them step {step}",
            self.state.bad_steps
        ))
        .with_hint("lower the learning rate, clip harder, or look at the data of these steps"))
    }

    fn after_step(&mut self, metrics: &[(String, f64)]) -> Result<Verdict> {
        let verdict = self.learner.after_step(metrics, &self.marker)?;
        self.states = self.learner.states()?;
        Ok(verdict)
    }

    /// Computes the largest batch before the first step, so that a run that lacks memory fails here.
    fn check_memory(&mut self) -> Result<()> {
        self.learner.try_worst_batch(&self.marker)
    }

    /// Prints notes about signs that nothing is learned.
    fn notice(&mut self, out: &WindowLoss, gradient: Gradient) -> Result<()> {
        self.notices.figures(out.metrics.iter().map(|(name, _)| name.as_str()));
        let spread = self.learner.rollouts.as_mut().and_then(Rollouts::spread);
        let said = [self.notices.step(self.state.step, gradient.norm), spread.and_then(|s| self.notices.rollout(s))];
        said.into_iter().flatten().try_for_each(|text| self.note(text))
    }
}
