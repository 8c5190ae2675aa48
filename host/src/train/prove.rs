//! Objectives are checked against the quick laws on the experiment's own first batch, before it is learned from: all of them where a
//! run begins, those whose bytes are new where it is resumed.
//!
//! A contradiction (a cotangent that is not the derivative, a sum that depends on the cut, no gradient at all, a number that the
//! manifest promises and that does not come out) stops the run, unless it was started with `--unproved`; then it stands in the
//! receipt. What passes is noted in `plugins.lock`.

use plugin_api::{
    batch::Batch,
    laws::objective::{QUICK, Quick},
    manifest::kind,
    objective::Objective,
    options::OptionMap,
};

use super::{
    Trainer,
    arrays::{Joined, Part, join},
    learner::Learner,
    pass::Pass,
    setup::Prepared,
    trail::Trail,
    window::join_batches,
};
use crate::{
    data::PackedBatch,
    error::{Error, Result},
    model::Keep,
    runs::receipt::Receipt,
};

impl Prepared {
    /// The experiment's objectives whose bytes have not passed the quick laws yet.
    pub(super) fn unproved(&self) -> Vec<String> {
        let ids = self.objectives.iter().map(|(library, _)| &library.info().id);
        ids.filter(|id| self.lock.is_unproved(kind::OBJECTIVE, id)).cloned().collect()
    }

    /// The objectives that are checked on the first batch: of a run that begins all, since what they compute depends on options
    /// and data too, and of one that is resumed those whose bytes are new.
    pub(super) fn to_check(&self, begins: bool) -> Vec<String> {
        match begins {
            true => self.objectives.iter().map(|(library, _)| library.info().id.clone()).collect(),
            false => self.unproved(),
        }
    }

    /// An instance of an objective under its default options, the experiment's where there is no default.
    fn plain(&self, id: &str) -> Option<Box<dyn Objective>> {
        let (library, manifest) = self.objectives.iter().find(|(library, _)| library.info().id == id)?;
        let given = &self.experiment().objective.iter().find(|own| own.plugin == id)?.options;
        let has_no_default = |name: &str| manifest.options.iter().any(|o| o.name == name && o.default.is_null());
        let options: OptionMap = given
            .iter()
            .filter(|(name, _)| has_no_default(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Some(Box::new(library.objective(&options).ok()?))
    }
}

/// Lines about what contradicts the quick laws, by objective; of those named in `ids` alone.
///
/// # Errors
/// The plugins' and the backend's own: what fails here would fail in the step.
pub(super) fn contradictions(
    prepared: &Prepared,
    learner: &mut Learner,
    micro_batches: &[PackedBatch],
    ids: &[String],
    trail: &Trail,
) -> Result<Vec<(String, Vec<String>)>> {
    let Some(first) = micro_batches.first().filter(|_| !ids.is_empty()) else { return Ok(Vec::new()) };
    let joined = match learner.objectives.needs().rollouts {
        // What `prepare` answered to a rollout rides along with its sequences.
        true => Joined::default(),
        false => learner.objectives.keeping_state(|objectives| objectives.prepare(micro_batches, trail))?,
    };
    trail.backend("the quick laws");
    let pass = Pass { model: &learner.model, roles: &learner.roles, objectives: &learner.objectives };
    let run = |packed: &PackedBatch| Ok(pass.run(packed, Keep::Nothing)?.batch);
    let (batch, part, rows): (Batch<'_>, Part, Vec<u64>) = if learner.objectives.coupled() {
        let whole = join(micro_batches);
        let batches: Vec<Batch<'_>> = micro_batches.iter().map(run).collect::<Result<_>>()?;
        (join_batches(&batches, &whole), Part::whole(&whole), whole.rows.clone())
    } else {
        let part = Part::all(micro_batches).first().copied().unwrap_or_else(|| Part::whole(first));
        (run(first)?, part, first.rows.clone())
    };
    // What is not even a loss is refused as in any step.
    learner.objectives.losses(&batch, &joined, part, &rows, trail)?;
    let mut found = Vec::new();
    for (index, active) in learner.objectives.iter().enumerate().filter(|(_, active)| ids.contains(&active.id)) {
        trail.objective(&active.id, "the quick laws");
        let quick = Quick {
            manifest: &active.manifest,
            objective: active.instance.as_ref(),
            plain: prepared.plain(&active.id),
            batch: &joined.with(index, &batch, part),
            vocabulary: usize::try_from(prepared.config.vocab).unwrap_or(usize::MAX),
        };
        let lines: Vec<String> = quick
            .verify()
            .failures()
            .map(|line| format!("{}: {} ({})", line.group, line.detail, meaning(&line.group)))
            .collect();
        if !lines.is_empty() {
            found.push((active.id.clone(), lines));
        }
    }
    trail.host();
    Ok(found)
}

fn meaning(law: &str) -> &'static str {
    QUICK.iter().find(|(name, _)| *name == law).map_or("", |(_, meaning)| meaning)
}

/// The refusal of the first of the objectives that contradict themselves.
pub(super) fn refusal(found: &[(String, Vec<String>)]) -> Option<Error> {
    let (id, lines) = found.first()?;
    let hint = format!(
        "`telos plugins verify {id}` shows the smallest case; `telos run --unproved` trains all the same and notes it in the receipt"
    );
    let error = Error::run(format!("objective \"{id}\" contradicts itself on the experiment's first batch"));
    Some(error.with_details(lines.clone()).with_hint(hint))
}

impl Trainer {
    /// Checks new objectives on the window that comes next, where it can be had without drawing a rollout. Nothing moves on.
    ///
    /// # Errors
    /// A contradiction.
    pub(super) fn prove_next_window(&mut self) -> Result<()> {
        let is_over = self.state.stopped || self.state.step >= self.state.total || self.learner.data_has_ended();
        if is_over
            || self.learner.rollouts.is_some()
            || !self.to_prove
            || self.prepared.to_check(self.state.step == 0).is_empty()
        {
            return Ok(());
        }
        let place = self.learner.batcher.state().clone();
        let micro_batches = self.learner.window(self.state.step, &self.trail)?;
        self.learner.batcher.restore(place)?;
        self.prove(&micro_batches)
    }

    /// Checks new objectives on a window, once.
    ///
    /// # Errors
    /// A contradiction.
    pub(super) fn prove(&mut self, micro_batches: &[PackedBatch]) -> Result<()> {
        let ids = if self.to_prove { self.prepared.to_check(self.state.step == 0) } else { Vec::new() };
        self.to_prove = false;
        if ids.is_empty() {
            return Ok(());
        }
        let found = contradictions(&self.prepared, &mut self.learner, micro_batches, &ids, &self.trail)?;
        if let Some(refusal) = refusal(&found).filter(|_| !self.prepared.accept_unproved) {
            return Err(refusal);
        }
        // An objective with text of its own is not checked here, so it stays unproved.
        let is_checked = |id: &String| self.learner.objectives.iter().any(|active| active.id == *id);
        let passed = |id: &&String| is_checked(id) && !found.iter().any(|(other, _)| other == *id);
        for id in ids.iter().filter(passed) {
            self.prepared.lock.prove(kind::OBJECTIVE, id);
        }
        self.prepared.lock.save()?;
        let told = |(id, lines): &(String, Vec<String>)| -> Vec<String> {
            lines.iter().map(|line| format!("{id}: {line}")).collect()
        };
        let lines: Vec<String> = found.iter().flat_map(told).collect();
        if lines.is_empty() {
            return Ok(());
        }
        for line in &lines {
            self.progress.message(&format!("note: trained although it contradicts itself (--unproved): {line}"));
        }
        let path = self.folder.receipt();
        let mut receipt = Receipt::read(&path)?;
        receipt.unproved = lines;
        receipt.write(&path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a refusal that names no law, no way to see the case, and no way on.
    #[test]
    fn a_refusal_names_plugin_law_and_both_ways_on() {
        assert!(refusal(&[]).is_none());
        let found = [("focal".to_owned(), vec!["cotangents: the sign".to_owned()])];
        let error = refusal(&found).unwrap();
        let report = error.report();
        assert_eq!(error.exit_code(), 1);
        for part in ["\"focal\"", "cotangents: the sign", "telos plugins verify focal", "--unproved", "receipt"] {
            assert!(report.contains(part), "{part} is missing in {report}");
        }
        assert!(QUICK.iter().all(|(law, meaning)| !meaning.is_empty() && super::meaning(law) == *meaning));
    }
}
