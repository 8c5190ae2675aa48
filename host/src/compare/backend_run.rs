//! One backend's run of the experiment: its learner, its measurements, and its failure, if any.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Instant,
};

use plugin_api::{abi::DType, backend::Session};
use serde::{Deserialize, Serialize};

use super::{
    agreement::Curve,
    compared_experiment::ComparedExperiment,
    deaths::mark::{Mark, Work},
    rollout_times::RolloutTimes,
    spec::Spec,
};
use crate::{
    config::Override,
    data::TrainingData,
    device::{
        Device,
        open::dtype,
        profile::{Profile, Record},
    },
    error::{Error, Kind, Result},
    plugins::Pinning,
    runs::breadcrumb::{self, CrashMarker, EnteringAtDrop, LeftAtDrop},
    setup::{Setup, loading::prepare},
    train::{learner::Learner, opening, rollout::Rollouts},
};

/// A backend to compare, with its experiment checked and its library loaded.
pub struct Entry {
    /// The spec, with a number added if an earlier backend has an equal one.
    pub label: String,
    /// The experiment with this backend.
    pub setup: Setup,
    /// Marks its work.
    pub mark: Mark,
}

impl Entry {
    /// Checks the experiment with the backend of `spec`, whose work is marked by `mark`. The backend's bytes need not be the pinned
    /// ones: a comparison uses what is installed, and leaves no run behind.
    ///
    /// # Errors
    /// Request errors that name the spec.
    pub fn new(spec: &Spec, mark: Mark, label: String, experiment: &ComparedExperiment<'_>) -> Result<Entry> {
        mark.begin(0);
        let own: Vec<Override> =
            experiment.overrides.iter().cloned().chain(spec.overrides(&experiment.backend)).collect();
        let setup = prepare(experiment.file, &own, experiment.plugin_folders, Pinning::Update)?;
        Ok(Entry { label, setup, mark })
    }

    /// The compute type.
    pub fn dtype(&self) -> DType {
        dtype(self.setup.experiment().backend.dtype)
    }

    /// Returns a learner on a device of `session`, with the experiment's initial weights.
    ///
    /// # Errors
    /// Request errors; out of memory.
    pub fn open(&self, session: Box<dyn Session>, data: &TrainingData) -> Result<Opened> {
        let plugin = &self.mark.plugin;
        // The order of these lines is the reverse order of their ends, also after an error.
        let left = LeftAtDrop;
        let device = breadcrumb::within(plugin, "supports", || Device::new(session, self.dtype()))?;
        let closes = EnteringAtDrop { plugin: plugin.clone(), call: "close" };
        let opening::Opened { learner, steps, .. } = opening::open(&self.setup, &device, data.clone(), None, false)?;
        let frees = EnteringAtDrop { plugin: plugin.clone(), call: "free" };
        Ok(Opened { steps, _frees: frees, learner, _closes: closes, device, _left: left })
    }
}

/// A learner and its device. The fields are dropped in this order, so that a crash at the end is blamed on the backend, and on an
/// objective only while its instance is destroyed.
pub struct Opened {
    /// Number of steps of a whole run.
    pub steps: u64,
    _frees: EnteringAtDrop,
    /// The learner.
    pub learner: Learner,
    _closes: EnteringAtDrop,
    /// The device. The learner has clones of it; the last one closes the session.
    pub device: Device,
    _left: LeftAtDrop,
}

/// Why and when a backend failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The step it was in, counted from 1; 0 if before the first one.
    pub step: u64,
    /// The error message.
    pub message: String,
}

/// One step's numbers.
pub struct Step {
    /// Loss before the update.
    pub loss: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Positions computed.
    pub tokens: u64,
    /// A hash of the tokens.
    pub batch: u64,
}

/// Does optimizer step `step` (counted from 0) of `total`, as a run does, on the backend with this mark.
///
/// # Errors
/// Those of the plugins and of the backend.
pub fn take_step(learner: &mut Learner, step: u64, total: u64, mark: &Mark) -> Result<Step> {
    let marker = mark.begin(step + 1);
    let window = learner.window(step, &marker)?;
    let mut hasher = DefaultHasher::new();
    window.iter().for_each(|micro_batch| micro_batch.tokens.hash(&mut hasher));
    let batch = hasher.finish();
    let (out, gradient) = learner.gradient(&window, &marker)?;
    learner.after_step(&out.of_objectives, &marker)?;
    marker.backend("update");
    if out.loss.is_finite() && gradient.finite {
        learner.update(learner.learning_rate(step, total), step + 1)?;
    }
    Ok(Step { loss: out.loss, grad_norm: gradient.norm, tokens: out.tokens, batch })
}

/// A backend with an open session.
pub struct BackendRun {
    /// The entry's label.
    pub label: String,
    /// Loss and gradient norm of the steps done.
    pub curve: Curve,
    /// Positions of the steps in the curve.
    pub tokens: u64,
    /// Set once it has failed; after that it does no more steps.
    pub failure: Option<Failure>,
    /// Whether its peak is measured.
    pub measures_peak: bool,
    /// The times of its rollouts.
    pub rollouts: RolloutTimes,
    /// The cost of its operations, recorded while the record is not paused.
    pub record: Record,
    mark: Mark,
    opened: Option<Opened>,
    step: u64,
}

impl BackendRun {
    /// Opens a session whose handles carry `tag`, and loads the model into it.
    ///
    /// # Errors
    /// Request errors. A device with too little memory is recorded as the run's failure instead.
    pub fn open(entry: &Entry, tag: u16, data: &TrainingData) -> Result<BackendRun> {
        entry.mark.begin(0);
        let (session, record) = Profile::wrap(entry.setup.session(tag)?);
        record.pause(true);
        let (opened, failure) = match entry.open(session, data) {
            Ok(opened) => (Some(opened), None),
            Err(error) if error.kind() == Kind::Request => return Err(error),
            Err(error) => (None, Some(Failure { step: 0, message: one_line(&error) })),
        };
        let (curve, tokens, rollouts) = Default::default();
        let (label, mark) = (entry.label.clone(), entry.mark.clone());
        Ok(BackendRun { label, mark, curve, tokens, failure, measures_peak: true, rollouts, record, opened, step: 0 })
    }

    /// The learner; `None` once the run has failed.
    pub fn learner(&self) -> Option<&Learner> {
        self.opened.as_ref().map(|opened| &opened.learner)
    }

    /// Does `count` steps and returns their number of positions and their seconds; `None` if a step failed. After
    /// the compared steps, more steps follow that are only measured: loss and norm are added to the curve only if
    /// `recorded` is set.
    pub fn run_steps(&mut self, count: u64, recorded: bool) -> Option<(u64, f64)> {
        let start = Instant::now();
        let mut tokens = 0;
        for _ in 0..count {
            tokens += self.take(recorded)?;
        }
        self.mark.begin(self.step).backend("sync");
        let synced = self.opened.as_ref().map(|opened| opened.device.sync());
        if let Some(Err(error)) = synced {
            return self.fail(error);
        }
        Some((tokens, start.elapsed().as_secs_f64()))
    }

    fn take(&mut self, recorded: bool) -> Option<u64> {
        let Opened { learner, steps, .. } = self.opened.as_mut()?;
        let sampling = learner.rollouts.as_ref().map(Rollouts::spent);
        let start = Instant::now();
        let mut done = take_step(learner, self.step, *steps, &self.mark);
        if sampling.is_some() {
            done = done.and_then(|step| learner.device.sync().map(|()| step));
        }
        match done {
            Ok(step) => {
                if let Some(begins) = sampling {
                    self.rollouts.push(begins, step.tokens, start.elapsed().as_secs_f64());
                }
                self.step += 1;
                if recorded {
                    self.tokens += step.tokens;
                    self.curve.loss.push(step.loss);
                    self.curve.grad_norm.push(step.grad_norm);
                    self.curve.batch.push(step.batch);
                }
                Some(step.tokens)
            }
            Err(error) => self.fail(error),
        }
    }

    /// Marks that the backend does `work` from here on, after its last step.
    pub fn begin(&self, work: Work) -> CrashMarker {
        self.mark.of(work).begin(self.step)
    }

    /// Records the failure and frees its memory for the other backends.
    fn fail<T>(&mut self, error: Error) -> Option<T> {
        self.failure = Some(Failure { step: self.step + 1, message: one_line(&error) });
        self.opened = None;
        None
    }
}

/// An error with its causes on one line.
pub fn one_line(error: &Error) -> String {
    let mut text = error.message().to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

/// A run whose session has ended.
pub struct FinishedRun {
    /// Loss and gradient norm by step.
    pub curve: Curve,
    /// Positions of those steps.
    pub tokens: u64,
    /// Where it failed.
    pub failure: Option<Failure>,
}

impl From<BackendRun> for FinishedRun {
    fn from(run: BackendRun) -> FinishedRun {
        run.begin(Work::Steps);
        let BackendRun { curve, tokens, failure, .. } = run;
        FinishedRun { curve, tokens, failure }
    }
}
