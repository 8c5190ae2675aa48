//! Opens a run: a new one, or a saved one to resume. Everything that can be refused is refused before the first file is
//! written.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    ANOTHER_RUN,
    about::About,
    digest::Digest,
    operations::MeasuredSteps,
    provenance,
    records::Records,
    resume::{self, Changed},
    row_hashes::RowHashes,
    state::TrainState,
};
use crate::{
    config::Experiment,
    error::{Error, Result},
    optimizer::moments,
    plugins::Pinning,
    runs::{
        Breadcrumb,
        breadcrumb::CrashMarker,
        checkpoint::{Checkpoint, Checkpoints, latest},
        disk::write_durably,
        end::RunEnd,
        folder::{CHECKPOINTS, Existing, RunFolder},
        jsonl::each_line,
        progress::{Progress, Watch},
        receipt::Replaced,
    },
    setup::Setup,
    train::{
        alerts::{Alerts, names, rules::Declared},
        eval::{checks, prompts::Evaluated},
        learner::Learner,
        notices::Notices,
        opening::{self, Opened},
        quick_laws::ToProve,
        trainer::Trainer,
    },
};

/// Opens everything a run needs.
pub(crate) fn trainer(mut setup: Setup, resume: bool, watch: &Watch) -> Result<Trainer> {
    let started = Instant::now();
    let experiment = setup.experiment().clone();
    let mut mistakes = setup.take_mistakes();
    let device = setup.device_or_mistakes(&mut mistakes)?;
    if device.is_some() {
        mistakes.check("backend.plugin", setup.pin_opened())?;
    }
    let runs_dir = Path::new(&experiment.runs_dir);
    let mut uncertain = CleanupGuard::new(runs_dir);
    let data = setup.data_or_mistakes(true, &mut mistakes)?;
    let mut changes = Changed::default();
    let (folder, checkpoint) = if resume {
        mistakes.finish()?;
        let folder = RunFolder::open(runs_dir, &experiment.name)?;
        changes = resume::changed(folder.path(), &experiment)?;
        let checkpoint = latest(&folder.path().join(CHECKPOINTS))?;
        (Some(folder), checkpoint)
    } else {
        (None, None)
    };
    let weights = checkpoint.as_ref().map(|c| c.path.as_path());
    let mut opened = opening::open_or_mistakes(&setup, device.as_ref(), data, weights, true, &mut mistakes)?;
    let parts = opened.as_mut().map(Opened::parts);
    let Evaluated { held_out, eval_prompts } = checks::finish(&setup, parts, checkpoint.is_none(), mistakes)?;
    let Some(Opened { mut learner, data, steps: total, reference }) = opened else {
        return Err(Error::run("the models were not opened"));
    };
    let (watch, unwatched) = &check_watched(watch, &learner, &experiment)?;
    let mut state = TrainState::new(total, learner.batcher.state().clone());
    if let Some(checkpoint) = &checkpoint {
        state = TrainState::read(&checkpoint.path)?;
        // Also if a process was killed between writing the longer experiment and its first checkpoint.
        if total != state.total {
            changes.lines.extend(resume::lengthen(&mut state, total, &experiment)?);
        }
        moments::read_moments(learner.optimizer.as_ref(), &checkpoint.path)?;
        learner.optimizer.continue_after(state.updates);
        if let Some(critic) = &mut learner.roles.critic {
            critic.optimizer.continue_after(state.updates);
        }
        if let Some(rollouts) = &mut learner.rollouts {
            rollouts.restore(&checkpoint.path)?;
        }
    }
    if let Some(template) = &data.chat_template {
        setup.tokenizer.set_chat_template(template);
    }
    let earlier = folder.as_ref().filter(|_| checkpoint.is_some()).map(|folder| folder.path().join("receipt.json"));
    let (mut receipt, notes) = provenance::receipt(&setup, &data, &learner, earlier.as_deref(), state.step)?;
    let mut states = Vec::new();
    if let Some(checkpoint) = &checkpoint {
        // All that may still be refused comes before the run's files are written.
        states = restore_progress(&setup, &mut learner, &state, &checkpoint.path)?;
    }
    let changed = Replaced { after_step: state.step, changes: changes.lines.clone() };
    if checkpoint.is_some() && !changes.lines.is_empty() && !changes.length {
        receipt.changed.push(changed.clone());
    }
    // From here on, files are written that stay.
    uncertain.keep();
    let folder = match folder {
        Some(folder) => folder,
        None => {
            let dev = setup.lock.pinning() == Pinning::Ignore;
            RunFolder::create(runs_dir, &experiment.name, if dev { Existing::ReplaceUnsaved } else { Existing::Keep })?
        }
    };
    let discards = checkpoint.is_none() && fs::metadata(folder.metrics()).is_ok_and(|metrics| metrics.len() > 0);
    // Logs that do not belong to the checkpoint are refused before the run's own files change.
    let records =
        checkpoint.is_some().then(|| Records::open(&folder, Some(&state), watch.events.clone())).transpose()?;
    // A new run pins its plugins only after they have passed the checks before its first step.
    if state.step > 0 {
        setup.lock.save()?;
    }
    let text = experiment.to_toml()?;
    let longer = changes.length.then(|| (text.clone(), changed));
    if longer.is_none() {
        write_durably(&folder.experiment(), text.as_bytes())?;
    }
    if !state.ended {
        // The receipt first: it shows which rows were fixed since the hashes of rows were written.
        receipt.write(&folder.receipt())?;
        if let Some(rows) = RowHashes::of(&data) {
            rows.write(&folder.rows())?;
        }
    }
    if !state.ended {
        let context = learner.context(state.total.saturating_sub(1));
        let auxiliary = learner.auxiliary.iter().flat_map(|one| one.objectives.iter());
        let objectives = learner.objectives.iter().chain(auxiliary);
        About::new(&learner.model, objectives, context).write(folder.access_path(), state.step)?;
        RunEnd::remove(folder.access_path())?;
    }
    let mut digest = Digest::default();
    let mut alerts = Alerts::new(&experiment, &declared(&learner));
    if checkpoint.is_some() {
        // The file has just been truncated to the checkpoint's lines.
        alerts.replay(&folder.metrics())?;
        each_line(&folder.metrics(), |line| digest.observe(&line))?;
    }
    let checkpoints = Checkpoints::new(&folder, experiment.checkpoint.keep, checkpoint.as_ref().map(|c| c.step))?;
    let mut records = records.map_or_else(|| Records::open(&folder, None, watch.events.clone()), Ok)?;
    if experiment.track.is_some_and(|track| track.tensorboard) && !state.ended {
        records.show(&folder.tensorboard(), checkpoint.as_ref().map(|_| state.step));
    }
    let progress = Progress::new(state.step, total, watch);
    if let Some(note) = unwatched {
        progress.message(&format!("note: {note}"));
    }
    if let Some(note) = folder.note() {
        progress.message(&format!("note: {note}"));
    }
    if let Some(rows) = &data.rows {
        progress.message(&format!("data: {rows}"));
    }
    if experiment.eval.every > 0 && held_out.is_empty() && eval_prompts.is_empty() {
        progress.message(
            "note: nothing is evaluated: prompts have no held-out loss; give eval.generate = 200 to score answers to them",
        );
    }
    for line in setup.lock.unpinned() {
        progress.message(&format!("note: --dev: not the pinned plugin: {line}"));
    }
    for line in receipt.replaced.iter().filter(|_| !state.ended).flat_map(provenance::replacement_lines) {
        progress.message(&line);
    }
    for line in &notes {
        progress.message(&format!("note: {line}"));
    }
    for line in &changes.lines {
        progress.message(&format!("note: changed on resuming: {line}"));
    }
    // On other devices a call returns before its operation is computed.
    if experiment.backend.device.split(':').next() == Some("cpu") {
        learner.device.time_operations();
    }
    let marker = CrashMarker::new(Breadcrumb::from_env(), &experiment.backend.plugin);
    marker.run(folder.path());
    let mut trainer = Trainer {
        marker,
        learner,
        held_out,
        data,
        reference,
        eval_prompts,
        folder,
        moved_to: None,
        longer,
        checkpoints,
        records,
        progress,
        state,
        states,
        texts: Vec::new(),
        alerts,
        digest,
        stop_reason: None,
        notices: Notices::default(),
        operations: MeasuredSteps::default(),
        notes: Vec::new(),
        started,
        mid_step: false,
        to_prove: ToProve::default(),
        setup,
    };
    trainer.report_start(resume, checkpoint, discards);
    Ok(trainer)
}

/// Refuses a watched metric that no step reports. A stage of a pipeline, whose other stages may report it, shows the loss instead,
/// with a note.
fn check_watched(watch: &Watch, learner: &Learner, experiment: &Experiment) -> Result<(Watch, Option<String>)> {
    let known = learner.metric_names();
    match &watch.metric {
        Some(metric) if !known.contains(metric) && experiment.name.contains('/') => {
            let meant =
                names::similar(metric, &known).map_or_else(String::new, |near| format!(" (did you mean \"{near}\"?)"));
            let note =
                format!("--watch: no step of this stage reports \"{metric}\"{meant}; the curve is that of the loss");
            Ok((Watch { metric: None, ..watch.clone() }, Some(note)))
        }
        Some(metric) if !known.contains(metric) => {
            Err(Error::request(format!("--watch: {}", names::unknown(metric, &known))))
        }
        _ => Ok((watch.clone(), None)),
    }
}

/// The metrics that all objectives declare.
fn declared(learner: &Learner) -> Vec<Declared<'_>> {
    let auxiliary = learner.auxiliary.iter().flat_map(|one| one.objectives.iter());
    learner.objectives.iter().chain(auxiliary).map(|active| (active.prefix.as_str(), &active.manifest)).collect()
}

/// Restores data order and objectives from the checkpoint. Returns the objectives' states.
fn restore_progress(
    setup: &Setup,
    learner: &mut Learner,
    state: &TrainState,
    checkpoint: &Path,
) -> Result<Vec<Vec<u8>>> {
    let mut place = state.data.clone();
    if setup.accepts_fixed_rows {
        // Comparing the receipts has already refused all rows except fixed ones.
        place.data = learner.batcher.state().data.clone();
    }
    learner.batcher.restore(place)?;
    for (one, place) in learner.auxiliary.iter_mut().zip(state.auxiliary.clone()) {
        one.batcher.restore(place)?;
    }
    let states = state.objectives(checkpoint, learner.every_objective().count())?;
    for (active, state) in learner.every_objective().zip(&states) {
        active.restore_exactly(state)?;
    }
    Ok(states)
}

/// Removes a runs folder that was created only for the token cache if setup fails.
pub(crate) struct CleanupGuard(Option<PathBuf>);

impl CleanupGuard {
    pub(crate) fn new(runs_dir: &Path) -> CleanupGuard {
        CleanupGuard((!runs_dir.exists()).then(|| runs_dir.to_owned()))
    }

    pub(crate) fn keep(&mut self) {
        self.0 = None;
    }
}

impl Drop for CleanupGuard {
    fn drop(&mut self) {
        if let Some(runs_dir) = &self.0 {
            _ = fs::remove_dir_all(runs_dir.join(".cache"));
            _ = fs::remove_dir(runs_dir);
        }
    }
}

impl Trainer {
    /// Prints the model's notes and the step at which the run resumes; `discards` says that metrics without a checkpoint were removed.
    fn report_start(&mut self, resume: bool, checkpoint: Option<Checkpoint>, discards: bool) {
        for note in self.learner.model.config().notes.iter().chain(&self.setup.tokenizer.notes()) {
            self.progress.message(&format!("note: {note}"));
        }
        let Some(checkpoint) = checkpoint else {
            if resume {
                let and = if discards { ", and the metrics of its earlier steps are discarded" } else { "" };
                let why = "there is no checkpoint yet: the run begins again from its first step";
                self.progress.message(&format!("note: {why}{and}"));
            }
            return;
        };
        if let Some(note) = checkpoint.stand_in() {
            self.progress.message(&format!("note: {note}"));
        }
        let (step, total) = (self.state.step, self.state.total);
        self.progress.message(&format!("continuing after step {step} of {total}"));
    }

    /// Returns what to tell the user if the run had already ended when it was resumed.
    pub fn ended(&self) -> Option<String> {
        let TrainState { step, total, stopped, ended, .. } = self.state;
        ended.then(|| match stopped && step < total {
            true => format!(
                "the run ended after step {step} of {total}: eval.early_stop, an alert or an objective stopped it, and nothing is left \
                 to do, even without that rule; {ANOTHER_RUN}"
            ),
            false => "the run has ended: nothing is left to do".to_owned(),
        })
    }
}
