//! The beginning of a run: a new one, or a saved one taken up again. Everything that can be refused is refused before the
//! first file is written.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    Trainer,
    exact::questions,
    held_out,
    learner::Opened,
    measured,
    notices::Notices,
    receipts,
    records::Records,
    setup::Prepared,
    state::{self, TrainState},
    trail::Trail,
};
use crate::{
    error::{Error, Result},
    plugins::Pinning,
    runs::{
        Breadcrumb,
        checkpoint::{Checkpoint, Checkpoints, latest},
        disk::write_durably,
        folder::{Existing, RunFolder},
        progress::{Progress, Show},
    },
};

/// Opens everything a run needs.
pub(super) fn trainer(mut prepared: Prepared, resume: bool, show: Show) -> Result<Trainer> {
    let started = Instant::now();
    let experiment = prepared.experiment().clone();
    let (device, _) = prepared.device(false)?;
    let runs_dir = Path::new(&experiment.runs_dir);
    let mut uncertain = Uncertain::new(runs_dir);
    let data = prepared.data(true)?;
    let (folder, checkpoint) = if resume {
        let folder = RunFolder::open(runs_dir, &experiment.name)?;
        same_experiment(folder.path(), &experiment.to_toml()?)?;
        let checkpoint = latest(&folder.checkpoints())?;
        (Some(folder), checkpoint)
    } else {
        (None, None)
    };
    let opened = prepared.learner(&device, data, checkpoint.as_ref().map(|c| c.path.as_path()), true)?;
    let Opened { mut learner, data, steps: total, note } = opened;
    let held_out = held_out(&prepared, &learner.objectives, &data)?;
    let questions = questions(&*data.held_out, &prepared.tokenizer, experiment.eval.generate.unwrap_or(0))?;
    if checkpoint.is_none() {
        prepared.check_samples()?;
        measured::check(&prepared, &mut learner, &held_out, &questions)?;
    }
    let mut state = TrainState::new(total, learner.batcher.state().clone());
    if let Some(checkpoint) = &checkpoint {
        state = TrainState::read(&checkpoint.path)?;
        state::read_moments(&learner.adam, &checkpoint.path)?;
        learner.adam.updates = state.updates;
        if let Some(critic) = &mut learner.roles.critic {
            critic.adam.updates = state.updates;
        }
        if let Some(rollouts) = &mut learner.rollouts {
            rollouts.restore(&checkpoint.path)?;
        }
    }
    if let Some(template) = &data.chat_template {
        prepared.tokenizer.set_chat_template(template);
    }
    let earlier = folder.as_ref().filter(|_| checkpoint.is_some()).map(|folder| folder.receipt());
    let receipt = receipts::receipt(&prepared, &data, &learner, earlier.as_deref(), state.step)?;
    // From here on files are written that stay.
    uncertain.keep();
    let folder = match folder {
        Some(folder) => folder,
        None => {
            let dev = prepared.lock.pinning() == Pinning::Ignore;
            RunFolder::create(runs_dir, &experiment.name, if dev { Existing::ReplaceUnsaved } else { Existing::Keep })?
        }
    };
    // A run that begins pins its plugins once they have passed the trial before its first step.
    if state.step > 0 {
        prepared.lock.save()?;
    }
    write_durably(&folder.experiment(), experiment.to_toml()?.as_bytes())?;
    if !state.ended {
        receipt.write(&folder.receipt())?;
    }
    let checkpoints = Checkpoints::new(&folder, experiment.checkpoint.keep)?;
    let records = Records::open(&folder, state.lines)?;
    let progress = Progress::new(state.step, total, show);
    if let Some(rows) = &data.rows {
        progress.message(&format!("data: {rows}"));
    }
    if let Some(note) = note {
        progress.message(&note);
    }
    if experiment.eval.every > 0 && held_out.is_empty() && questions.is_empty() {
        progress.message(
            "note: nothing is evaluated: prompts have no held-out loss; eval.generate = 200 has answers to them judged",
        );
    }
    for line in prepared.lock.unpinned() {
        progress.message(&format!("note: --dev: not the pinned plugin: {line}"));
    }
    for line in receipt.replaced.iter().filter(|_| !state.ended).flat_map(receipts::told) {
        progress.message(&line);
    }
    let trail = Trail::new(Breadcrumb::from_env(), &experiment.backend.plugin);
    trail.run(&folder);
    let mut trainer = Trainer {
        trail,
        learner,
        held_out,
        held_out_rows: data.held_out.clone(),
        questions,
        folder,
        checkpoints,
        records,
        progress,
        state,
        texts: Vec::new(),
        notices: Notices::default(),
        notes: Vec::new(),
        started,
        torn: false,
        to_prove: true,
        prepared,
    };
    trainer.take_up(resume, checkpoint)?;
    Ok(trainer)
}

/// The token cache is written while a request may still be refused: where it made the folder of runs, it goes again then.
pub(crate) struct Uncertain(Option<PathBuf>);

impl Uncertain {
    pub(crate) fn new(runs_dir: &Path) -> Uncertain {
        Uncertain((!runs_dir.exists()).then(|| runs_dir.to_owned()))
    }

    pub(crate) fn keep(&mut self) {
        self.0 = None;
    }
}

impl Drop for Uncertain {
    fn drop(&mut self) {
        if let Some(runs_dir) = &self.0 {
            _ = fs::remove_dir_all(runs_dir.join(".cache"));
            _ = fs::remove_dir(runs_dir);
        }
    }
}

impl Trainer {
    /// Puts data order and objectives where the checkpoint says, and tells the user where the run stands.
    fn take_up(&mut self, resume: bool, checkpoint: Option<Checkpoint>) -> Result<()> {
        for note in self.learner.model.config().notes.iter().chain(&self.prepared.tokenizer.notes()) {
            self.progress.message(&format!("note: {note}"));
        }
        let Some(checkpoint) = checkpoint else {
            if resume {
                self.progress.message("there is no checkpoint yet: the run begins again from its first step");
            }
            return Ok(());
        };
        if let Some(note) = checkpoint.stand_in() {
            self.progress.message(&note);
        }
        self.learner.batcher.restore(self.state.data.clone())?;
        for (beside, place) in self.learner.beside.iter_mut().zip(self.state.beside.clone()) {
            beside.batcher.restore(place)?;
        }
        let saved = self.state.objectives.clone();
        for (active, text) in self.learner.every_objective().zip(saved) {
            active.restore(&state::from_hex(&text)?)?;
        }
        let (step, total) = (self.state.step, self.state.total);
        self.progress.message(&format!("going on after step {step} of {total}"));
        Ok(())
    }

    /// Whether the run had come to its end before it was taken up again.
    pub fn ended(&self) -> bool {
        self.state.ended
    }
}

/// The run in `folder` can only be taken up with the experiment it began with; how many threads compute does not matter.
pub(crate) fn same_experiment(folder: &Path, now: &str) -> Result<()> {
    let path = folder.join("experiment.toml");
    let before =
        fs::read_to_string(&path).map_err(|e| Error::run(format!("cannot read {}", path.display())).with_cause(e))?;
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("threads = ")).map(str::to_owned).collect()
    };
    let (old, new) = (lines(&before), lines(now));
    if before.is_empty() || old == new {
        return Ok(());
    }
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("was: {line}"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("is:  {line}"));
    Err(Error::request(format!("the experiment is not the one that run {} began with", folder.display()))
        .with_details(gone.chain(come))
        .with_hint("resume with the experiment as it was, or start another run with --name (and model.from this one)"))
}
