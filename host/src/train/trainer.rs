//! A run in progress: everything that the training loop works with.

use std::{path::PathBuf, time::Instant};

use plugin_api::objective::Verdict;

use super::{
    alerts::{Alerts, Line},
    eval::prompts::EvalPrompt,
    learner::Learner,
    notices::Notices,
    quick_laws::ToProve,
    roles::reference_pass::ReferencePass,
    rollout::Rollouts,
    run::{digest::Digest, operations::MeasuredSteps, records::Records, state::TrainState},
    step::{gradient::WindowLoss, metrics::OwnNumbers},
};
use crate::{
    config::Experiment,
    data::{PackedBatch, TrainingData},
    error::{Error, Result},
    generate::text::SampleText,
    runs::{Checkpoints, Progress, RunFolder, breadcrumb::CrashMarker, receipt::Replaced},
    setup::Setup,
};

/// A run in progress.
pub struct Trainer {
    pub(super) setup: Setup,
    pub(super) learner: Learner,
    pub(super) held_out: Vec<PackedBatch>,
    pub(super) data: TrainingData,
    /// The pass in which a frozen reference scores rows before the first step of this process.
    pub(super) reference: Option<ReferencePass>,
    /// Held-out prompts to answer in evaluations; empty without `eval.generate`.
    pub(super) eval_prompts: Vec<EvalPrompt>,
    pub(super) folder: RunFolder,
    /// The run's new folder if it was moved while the run was active.
    pub(super) moved_to: Option<PathBuf>,
    /// The longer experiment of a run that was extended, and the receipt's entry about it. Both are written with the next
    /// checkpoint: until then the run has its old length.
    pub(super) longer: Option<(String, Replaced)>,
    pub(super) checkpoints: Checkpoints,
    pub(super) records: Records,
    pub(super) progress: Progress,
    pub(super) marker: CrashMarker,
    pub(super) state: TrainState,
    /// State of each objective after the latest step; empty before the first one.
    pub(super) states: Vec<Vec<u8>>,
    /// The latest samples, for the summary.
    pub(super) texts: Vec<SampleText>,
    /// The rules that watch the metrics.
    pub(super) alerts: Alerts,
    /// The first and last numbers of the run, for the summary.
    pub(super) digest: Digest,
    /// Why the run stopped before its last step, once it has.
    pub(super) stop_reason: Option<String>,
    /// The time of operations in the latest steps, until a line is due.
    pub(super) operations: MeasuredSteps,
    /// Notes that are printed once if something looks wrong.
    pub(super) notices: Notices,
    /// The notes printed so far.
    pub(super) notes: Vec<String>,
    /// When this process opened the run.
    pub(super) started: Instant,
    /// Whether the device is ahead of `state`: from a step's update until its line is written.
    pub(super) mid_step: bool,
    /// Which objectives are still to be checked on a batch.
    pub(super) to_prove: ToProve,
}

impl Trainer {
    pub(super) fn experiment(&self) -> &Experiment {
        self.setup.experiment()
    }

    /// Calls the objectives' `after_step`, and keeps their states for the next checkpoint.
    pub(super) fn after_step(&mut self, window: &[OwnNumbers]) -> Result<Verdict> {
        let verdict = self.learner.after_step(window, &self.marker)?;
        self.states = self.learner.states()?;
        Ok(verdict)
    }

    /// Makes the step part of the state: the data that it read, its number, its tokens and its update.
    pub(super) fn commit(&mut self, tokens: u64) {
        if let Some(rollouts) = &mut self.learner.rollouts {
            rollouts.commit();
        }
        self.state.data = self.learner.batcher.state().clone();
        self.state.auxiliary = self.learner.auxiliary.iter().map(|one| one.batcher.state().clone()).collect();
        self.state.step += 1;
        self.state.tokens += tokens;
        self.state.updates = self.learner.optimizer.updates();
    }

    /// Checks the expectations of the objectives after the first step, and prints the notes that are due.
    pub(super) fn check_step(&mut self, out: &WindowLoss) -> Result<()> {
        if self.state.step == 1 {
            self.check_first_step(out)?;
        }
        self.notices.figures(out.metrics.iter().map(|(name, _)| name.as_str()));
        self.records.take_failure().into_iter().try_for_each(|text| self.note(text))?;
        self.notes_of_rollouts()
    }

    /// Writes the time of operations if a line is due, or, before a checkpoint and at the end of the run (`end`), what is left.
    pub(super) fn record_operations(&mut self, end: bool) -> Result<()> {
        let due = self.operations.take_due(end);
        due.map_or(Ok(()), |due| self.records.operations(self.state.step, &due))
    }

    /// Prints notes about the rollouts since the last call, such as those that were skipped.
    pub(super) fn notes_of_rollouts(&mut self) -> Result<()> {
        let notes = self.learner.rollouts.as_mut().map(Rollouts::take_notes).unwrap_or_default();
        notes.into_iter().try_for_each(|text| self.note(text))
    }

    /// Counts consecutive non-finite steps and returns an error at `max_bad_steps`. Such a step does not update the policy.
    pub(super) fn count_bad(&mut self, finite: bool, loss: f64, norm: f64) -> Result<()> {
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

    /// Adds a line of metrics.jsonl to the summary, passes it to the alerts, and prints and records those that begin or end.
    pub(super) fn watch(&mut self, line: &Line) -> Result<()> {
        self.digest.observe(line);
        for change in self.alerts.observe(line) {
            self.progress.message(&change.to_string());
            self.records.alert(&change)?;
        }
        Ok(())
    }

    /// Prints a note once and records it: in timing.jsonl and for the summary.
    pub(super) fn note(&mut self, text: String) -> Result<()> {
        if self.notes.contains(&text) {
            return Ok(());
        }
        self.progress.message(&format!("note: {text}"));
        self.records.note(self.state.step, &text)?;
        self.records.done();
        self.notes.push(text);
        Ok(())
    }
}
