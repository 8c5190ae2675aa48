//! Checkpoints of a run: when one is written, what it contains, and what is saved after a failure.

use std::time::Instant;

use serde_json::json;

use super::{End, learner::Learner, run::state, trainer::Trainer};
use crate::{
    error::{Error, Result},
    optimizer::{kind::global_norm, moments},
    runs::{
        checkpoint::find::MERGED,
        disk::{shown, write_durably},
        end::{Ending, RunEnd},
        receipt::Receipt,
    },
};

impl Trainer {
    /// Saves a checkpoint. A failure is printed and does not end the run: the last good checkpoint stays.
    pub(super) fn save_or_report(&mut self) {
        if let Err(error) = self.save() {
            self.progress.message(&format!("{}the run continues without this checkpoint", error.report()));
        }
    }

    /// Saves a checkpoint if one is due after this step, or if the step is the `best` one so far. The last step's checkpoint is
    /// written at the end and includes the last evaluation and samples.
    pub(super) fn save_if(&mut self, best: bool) {
        let every = self.experiment().checkpoint.every;
        let last = self.state.stopped || self.state.step == self.state.total;
        if !last && (best || (every > 0 && self.state.step.is_multiple_of(every))) {
            self.save_or_report();
        }
    }

    pub(super) fn save(&mut self) -> Result<String> {
        self.marker.host();
        if !global_norm(&self.learner.device, self.learner.model.learned().params)?.finite {
            let step = self.state.step;
            return Err(Error::run(format!("the weights after step {step} are not finite; they are not saved"))
                .with_hint("lower the learning rate; the previous checkpoint is intact"));
        }
        if let Some(place) = self.folder.moved()?
            && self.moved_to.as_ref() != Some(&place)
        {
            let from = self.folder.path().display();
            self.progress.message(&format!(
                "note: the folder of the run was moved from {from} to {}: the run continues there",
                place.display()
            ));
            self.moved_to = Some(place);
        }
        self.record_operations(true)?;
        self.state.logs = self.records.durable()?;
        // The files' contents are held in this process's memory for a while: freeing spare buffers makes room.
        self.learner.device.trim();
        let Learner { model, optimizer, roles, rollouts, .. } = &self.learner;
        let (state, states, tokenizer) = (&self.state, &self.states, &self.setup.tokenizer);
        let merged = self.setup.experiment().checkpoint.merged;
        let start = Instant::now();
        let best = state.best_step == Some(state.step);
        let storage = self.experiment().checkpoint.storage();
        let saved = self.checkpoints.save(state.step, best, |folder| {
            model.save_as(folder, storage)?;
            model.save_masters(folder, storage)?;
            tokenizer.save(folder)?;
            if merged {
                let folder = folder.join(MERGED);
                std::fs::create_dir(&folder)
                    .map_err(|e| Error::run(format!("cannot create {}", folder.display())).with_cause(e))?;
                model.merged()?.save_as(&folder, storage)?;
                tokenizer.save(&folder)?;
            }
            moments::write_moments(optimizer.as_ref(), folder)?;
            roles.save(folder)?;
            if let Some(rollouts) = rollouts {
                rollouts.save(folder)?;
            }
            state::write_objectives(states, folder)?;
            state.write(folder)
        })?;
        for warning in &saved.warnings {
            self.progress.message(warning);
        }
        let name = saved.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Err(error) = self.write_longer() {
            self.progress.message(&format!("{}{name} was saved nevertheless", error.report()));
        }
        let seconds = start.elapsed().as_secs_f64();
        self.progress.message(&format!("saved {name} in {seconds:.2} s"));
        let event =
            json!({ "step": self.state.step, "checkpoint": name, "path": shown(&saved.path), "seconds": seconds });
        self.records.emit("checkpoint", &event);
        Ok(name)
    }

    /// Writes the longer experiment of a run that was extended, once a checkpoint of the longer run exists.
    pub(super) fn write_longer(&mut self) -> Result<()> {
        let Some((text, changed)) = &self.longer else { return Ok(()) };
        let mut receipt = Receipt::read(&self.folder.receipt())?;
        // The entry exists already if an earlier attempt failed to write the experiment.
        if receipt.changed.last() != Some(changed) {
            receipt.changed.push(changed.clone());
            receipt.write(&self.folder.receipt())?;
        }
        write_durably(&self.folder.experiment(), text.as_bytes())?;
        self.longer = None;
        Ok(())
    }

    /// Writes how the run ended. A failure to do so is printed.
    pub(super) fn record_end(&mut self, outcome: Result<End, &Error>) {
        let step = self.state.step;
        let end = match outcome {
            Ok(End::Done) => RunEnd::now(Ending::Done, step),
            Ok(End::Early) => RunEnd { reason: self.stop_reason.clone(), ..RunEnd::now(Ending::Early, step) },
            Ok(End::Interrupted) => RunEnd::now(Ending::Interrupted, step),
            Ok(End::Paused) => RunEnd::now(Ending::Paused, step),
            Err(error) => RunEnd::of(error, Ending::Failed, step),
        };
        // A run that failed before its first step has no folder any more.
        if self.folder.experiment().exists()
            && let Err(error) = end.write(self.folder.access_path())
        {
            self.progress.message(&error.report());
        }
    }

    /// Saves the state after a failure, if it is consistent (the last step is complete), and adds to the error what was saved.
    pub(super) fn save_after(&mut self, error: Error) -> Error {
        self.progress.finish();
        let step = self.state.step;
        // There is nothing to resume, and the next attempt would find the name in use.
        if step == 0 && self.folder.discard() {
            return error.with_details([format!(
                "removed {}: the run ended before its first step",
                self.folder.path().display()
            )]);
        }
        if self.mid_step {
            let kept = self.checkpoints.latest().ok().flatten();
            let kept =
                kept.map_or("there is none yet".to_owned(), |c| format!("the last is {}", shown(&c.path).display()));
            return error
                .with_details([format!("step {} is incomplete: continue from a checkpoint; {kept}", step + 1)]);
        }
        if step == 0 {
            return error;
        }
        match self.save() {
            Ok(name) => {
                let saved = format!("step {step} is saved as {name}: fix the cause and continue with --resume");
                let otherwise = "if the fix changes the experiment, start another run from this checkpoint with --name and model.from";
                error.with_details([saved, otherwise.to_owned()])
            }
            Err(second) => {
                error.with_details([format!("the state after step {step} could not be saved: {}", second.message())])
            }
        }
    }
}
