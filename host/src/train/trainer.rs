//! A run in progress: everything that the training loop works with.

use std::{path::PathBuf, time::Instant};

use super::{
    eval::exact_match::EvalPrompt,
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
    /// What a frozen reference has to do before the first step of this process, or has done.
    pub(super) reference: Option<ReferencePass>,
    /// Held-out prompts to answer in evaluations; none where `eval.generate` is not given.
    pub(super) questions: Vec<EvalPrompt>,
    pub(super) folder: RunFolder,
    /// Where the folder was moved to while the run went on.
    pub(super) moved_to: Option<PathBuf>,
    /// The experiment of a run that was made longer, and what its receipt says of that, written with its next checkpoint: until then
    /// the run is the shorter one.
    pub(super) longer: Option<(String, Replaced)>,
    pub(super) checkpoints: Checkpoints,
    pub(super) records: Records,
    pub(super) progress: Progress,
    pub(super) marker: CrashMarker,
    pub(super) state: TrainState,
    /// State of each objective after the latest step; none before the first one.
    pub(super) states: Vec<Vec<u8>>,
    /// The latest samples, for the summary.
    pub(super) texts: Vec<SampleText>,
    /// What looks wrong and is said once.
    pub(super) notices: Notices,
    /// What was said so.
    pub(super) notes: Vec<String>,
    /// When this process took the run up.
    pub(super) started: Instant,
    /// Whether the device is ahead of `state`: from the update of a step until its line is written.
    pub(super) mid_step: bool,
    /// Which objectives are still to be checked on a batch.
    pub(super) to_prove: ToProve,
}

impl Trainer {
    pub(super) fn experiment(&self) -> &Experiment {
        self.setup.experiment()
    }

    /// Says something once, and writes it down: in timing.jsonl, and for the summary.
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
