//! What a run does before its first step in this process and after its last one.

use plugin_api::objective::Verdict;
use serde_json::{Value, json};

use super::{
    End,
    eval::held_out::{held_out, held_out_spans},
    learner::Learner,
    notices,
    roles::reference_pass::{PassEnd, RowsRead},
    trainer::Trainer,
};
use crate::{
    error::{Error, Result},
    runs::Interrupt,
};

impl Trainer {
    /// What programs that watch the run receive first.
    pub(super) fn beginning(&self) -> Value {
        let (parameters, trained) = self.learner.model.count();
        let objectives = self.experiment().objective.iter().map(|objective| objective.plugin.as_str());
        json!({
            "name": self.experiment().name,
            "folder": self.folder.path(),
            "objectives": objectives.collect::<Vec<_>>(),
            "parameters": parameters,
            "trained_parameters": trained,
            "step": self.state.step,
            "total": self.state.total,
        })
    }

    /// Computes what the reference contributes, checks memory, objectives and the untrained model. Returns false if the user
    /// interrupts it.
    pub(super) fn before_first_step(&mut self, interrupt: &Interrupt) -> Result<bool> {
        if !self.score_by_reference(interrupt)? {
            return Ok(false);
        }
        self.learner.set_step(self.state.step + 1);
        if self.state.step == 0 {
            // The memory check may use rows that the reference did not score: these get log-probabilities of 0 during the check.
            self.reference.iter().for_each(|reference| reference.use_zeros(true));
            self.learner.try_worst_batch(&self.marker)?;
            self.reference.iter().for_each(|reference| reference.use_zeros(false));
        }
        let Learner { objectives, batcher, .. } = &self.learner;
        let notes = notices::at_start(self.experiment(), objectives, batcher, self.learner.context(0))?;
        notes.into_iter().chain(self.records.take_failure()).try_for_each(|text| self.note(text))?;
        self.prove_next_window()?;
        // Only now: a plugin that fails its checks will be changed and must not be pinned.
        self.setup.lock.save()?;
        // At step 0, and if the process before this one failed between a step and its evaluation or samples.
        let best = self.evaluate_if(self.state.step == 0)?;
        self.sample_if(false)?;
        if self.state.step > 0 && !self.state.stopped {
            self.state.stopped = self.is_to_stop(Verdict::CONTINUE);
        }
        if best && !self.state.stopped && self.state.step < self.state.total {
            self.save_or_report();
        }
        Ok(true)
    }

    /// Evaluates and samples the trained model, and prints the notes about the whole run.
    pub(super) fn after_last_step(&mut self) -> Result<End> {
        self.evaluate_if(true)?;
        self.sample_if(true)?;
        self.state.ended = true;
        self.record_operations(true)?;
        self.records.done();
        self.note_unchecked()?;
        let auxiliary = self.learner.auxiliary.iter().flat_map(|one| one.objectives.iter());
        let notes = self.notices.end(self.learner.objectives.iter().chain(auxiliary));
        self.alerts
            .too_short()
            .into_iter()
            .chain(notes)
            .chain(self.records.take_failure())
            .try_for_each(|text| self.note(text))?;
        // A process that resumes a stopped run finds the reason again, unless it was an objective's.
        if self.state.stopped && self.stop_reason.is_none() {
            self.stop_reason = self.why_to_stop(Verdict::CONTINUE);
        }
        Ok(if self.state.stopped { End::Early } else { End::Done })
    }

    /// Computes the frozen reference's log-probabilities for all rows that the rest of the run reads, and drops that model.
    /// Returns false if the user interrupts it.
    fn score_by_reference(&mut self, interrupt: &Interrupt) -> Result<bool> {
        let Some(pass) = self.reference.take() else { return Ok(true) };
        let steps = self.state.total.saturating_sub(self.state.step);
        let train = self.learner.batcher.documents_ahead(steps, self.learner.context(self.state.step))?;
        let evaluated = held_out_spans(&self.setup, &self.data).iter().map(|row| row.document).collect();
        let role = self.learner.roles.reference.as_mut();
        let model = role.and_then(|role| role.model.take());
        let model = model.ok_or_else(|| Error::run("the reference model is missing"))?;
        self.marker.backend("reference pass");
        match pass.run(&model, &RowsRead { train, held_out: evaluated }, &self.progress, interrupt)? {
            PassEnd::Interrupted => return Ok(false),
            PassEnd::Scored(note) => self.progress.message(&note),
        }
        drop(model);
        self.setup.bases.drop_unused();
        self.reference = Some(pass);
        self.held_out = held_out(&self.setup, &self.learner.objectives, &self.data)?;
        Ok(true)
    }
}
