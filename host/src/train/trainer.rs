//! A run in progress: everything that the training loop works with.

use std::{path::PathBuf, time::Instant};

use super::{
    eval::prompts::EvalPrompt,
    learner::Learner,
    notices::Notices,
    quick_laws::ToProve,
    roles::reference_pass::ReferencePass,
    run::{records::Records, state::TrainState},
};
use crate::{
    config::Experiment,
    data::{PackedBatch, TrainingData},
    error::Result,
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
    pub(super) questions: Vec<EvalPrompt>,
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
