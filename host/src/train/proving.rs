//! Checks the run's objectives against the quick laws before training on them, and records the results.

use std::collections::BTreeSet;

use plugin_api::manifest::kind;

use super::{
    learner::Learner,
    quick_laws::{MOST_WINDOWS, Proof, ToProve, proofs, refusal, to_check, uncompared},
    trainer::Trainer,
};
use crate::{data::PackedBatch, error::Result, runs::receipt::Receipt};

impl Trainer {
    /// Returns the objectives that are still to be checked.
    fn unchecked(&mut self) -> BTreeSet<usize> {
        let (setup, begins) = (&self.setup, self.state.step == 0);
        let tables = self.to_prove.tables.get_or_insert_with(|| to_check(setup, begins));
        if self.to_prove.windows < MOST_WINDOWS { tables.clone() } else { BTreeSet::new() }
    }

    /// Checks objectives on the next window, unless that needs a rollout to be drawn, and those with their own text on their
    /// next window. No place in the data changes.
    ///
    /// # Errors
    /// A contradiction.
    pub(super) fn prove_next_window(&mut self) -> Result<()> {
        if self.state.stopped || self.state.step >= self.state.total || self.learner.data_has_ended() {
            return Ok(());
        }
        self.prove_auxiliary()?;
        if self.learner.rollouts.is_some() || self.unchecked().is_empty() {
            return Ok(());
        }
        let place = self.learner.batcher.state().clone();
        let micro_batches = self.learner.window(self.state.step, &self.marker)?;
        self.learner.batcher.restore(place)?;
        self.prove(&micro_batches)
    }

    /// Checks objectives with their own text on their next window. The place in the text does not change.
    fn prove_auxiliary(&mut self) -> Result<()> {
        let tables = self.unchecked();
        let mut results = Vec::new();
        let Learner { model, roles, auxiliary, .. } = &mut self.learner;
        for one in auxiliary.iter_mut().filter(|_| !tables.is_empty()) {
            let micro_batches = one.peek()?;
            let models = roles.models(model);
            results.extend(proofs(&self.setup, models, &mut one.objectives, &micro_batches, &tables, &self.marker)?);
        }
        self.record_results(&results)
    }

    /// Checks objectives on a window; each one until all its terms have been compared once.
    ///
    /// # Errors
    /// A contradiction.
    pub(super) fn prove(&mut self, micro_batches: &[PackedBatch]) -> Result<()> {
        let tables = self.unchecked();
        if tables.is_empty() {
            return Ok(());
        }
        self.to_prove.windows += 1;
        let Learner { model, roles, objectives, .. } = &mut self.learner;
        let results = proofs(&self.setup, roles.models(model), objectives, micro_batches, &tables, &self.marker)?;
        self.record_results(&results)
    }

    /// Adds a note for each objective that could not be checked in any window of this run.
    ///
    /// # Errors
    /// The note cannot be written.
    pub(super) fn note_unchecked(&mut self) -> Result<()> {
        let unchecked: Vec<Proof> = self.to_prove.silent.values().cloned().collect();
        uncompared(&unchecked).into_iter().try_for_each(|line| self.note(line))
    }

    /// Returns an error for a contradiction, or records it with `--unproved`; records what passed in `plugins.lock`. Objectives
    /// with terms that could not be compared stay unchecked.
    fn record_results(&mut self, results: &[Proof]) -> Result<()> {
        if results.is_empty() {
            return Ok(());
        }
        if let Some(refusal) = refusal(results).filter(|_| !self.setup.accept_unproved) {
            return Err(refusal);
        }
        let ToProve { tables, contradicting, silent, .. } = &mut self.to_prove;
        let tables = tables.get_or_insert_default();
        for proof in results {
            if !proof.contradictions.is_empty() {
                contradicting.insert(proof.id.clone());
            }
            if proof.passed() || !proof.contradictions.is_empty() {
                tables.remove(&proof.table);
                silent.remove(&proof.table);
            } else {
                silent.insert(proof.table, proof.clone());
            }
        }
        let is_unfinished = |id: &str| {
            let same = |table: &usize| self.setup.experiment().objective.get(*table).is_some_and(|o| o.plugin == id);
            contradicting.contains(id) || tables.iter().any(same)
        };
        let passed: Vec<&str> = results.iter().map(|proof| proof.id.as_str()).filter(|id| !is_unfinished(id)).collect();
        passed.into_iter().for_each(|id| self.setup.lock.prove(kind::OBJECTIVE, id));
        self.setup.lock.save()?;
        let contradictions = |proof: &Proof| -> Vec<String> {
            proof.contradictions.iter().map(|line| format!("{}: {line}", proof.id)).collect()
        };
        let lines: Vec<String> = results.iter().flat_map(contradictions).collect();
        if lines.is_empty() {
            return Ok(());
        }
        for line in &lines {
            self.progress.message(&format!("note: trained although a law is broken (--unproved): {line}"));
        }
        let path = self.folder.receipt();
        let mut receipt = Receipt::read(&path)?;
        receipt.unproved.extend(lines.into_iter().filter(|line| !receipt.unproved.contains(line)).collect::<Vec<_>>());
        receipt.write(&path)
    }
}
