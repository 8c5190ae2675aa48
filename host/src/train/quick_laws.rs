//! Objectives are checked against the quick laws on the experiment's own first batch, before training on it: all of them when a
//! run begins, those with new bytes when it is resumed.
//!
//! A contradiction (a cotangent that is not the derivative, a sum or normaliser that depends on how the window is cut, a value
//! that is declared constant and is not, no gradient at all, a number that the manifest promises and that does not come out)
//! stops the run, unless it was started with `--unproved`; then it is recorded in the receipt. Objectives that pass are
//! recorded in `plugins.lock`. A batch in which all cotangents of a term are 0 proves nothing: the objective is checked again
//! on the next one.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::{
    batch::Batch,
    manifest::{ObjectiveManifest, kind},
    objective::Objective,
    options::OptionMap,
};
use plugin_api_laws::{
    Line,
    objective::{NOTHING_LEARNED, QUICK, Quick},
};

use super::step::{forward::ForwardPass, models::Models, window::prepare};
use crate::{
    data::PackedBatch,
    error::{Error, Result},
    model::Keep,
    objectives::{
        Objectives,
        batch_arrays::join_batches,
        micro_batch::{MicroBatchRange, join},
        prepared_arrays::PreparedArrays,
    },
    runs::breadcrumb::CrashMarker,
    setup::Setup,
};

/// Maximum number of windows on which an objective is checked. In some windows a term cannot be compared because all its
/// cotangents are 0, for example if all rewards of a rollout are equal.
pub(super) const MOST_WINDOWS: u64 = 20;

/// Returns the objectives to check on the first batch, as indices of the experiment's objectives. When a run begins: all, since
/// what they compute also depends on options and data. When it is resumed: those whose bytes have not passed yet.
pub(super) fn to_check(setup: &Setup, begins: bool) -> BTreeSet<usize> {
    let ids = setup.objectives.iter().map(|(library, _)| library.info().id.as_str()).enumerate();
    ids.filter(|(_, id)| begins || setup.lock.is_unproved(kind::OBJECTIVE, id)).map(|(table, _)| table).collect()
}

/// Creates the objective of table number `table` with its default options; options without a default keep the table's value.
fn plain(setup: &Setup, table: usize) -> Option<Box<dyn Objective>> {
    let (library, manifest) = setup.objectives.get(table)?;
    let given = &setup.experiment().objective.get(table)?.options;
    Some(Box::new(library.objective(&without_defaults(manifest, given)).ok()?))
}

/// Returns the options in `given` that have no default.
fn without_defaults(manifest: &ObjectiveManifest, given: &OptionMap) -> OptionMap {
    let has_no_default = |name: &str| manifest.options.iter().any(|o| o.name == name && o.default.is_null());
    given.iter().filter(|(name, _)| has_no_default(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Results of the quick laws for one objective.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    /// Its index among the experiment's objectives.
    pub(super) table: usize,
    /// Id of the plugin.
    pub(super) id: String,
    /// One line for each law that it contradicts.
    pub(super) contradictions: Vec<String>,
    /// Terms whose cotangents are all 0 in this batch.
    pub(super) silent: Vec<String>,
}

impl Proof {
    /// Returns whether every term was compared and no law was contradicted.
    pub(super) fn passed(&self) -> bool {
        self.contradictions.is_empty() && self.silent.is_empty()
    }
}

/// Checks those of `objectives` whose index is in `tables` against the quick laws on one window: each on the first micro-batch
/// in which every term has a cotangent other than 0, else on the last one.
///
/// # Errors
/// Errors of plugins and of the backend, which would also occur in the step.
pub(super) fn proofs(
    setup: &Setup,
    models: Models<'_>,
    objectives: &mut Objectives,
    micro_batches: &[PackedBatch],
    tables: &BTreeSet<usize>,
    marker: &CrashMarker,
) -> Result<Vec<Proof>> {
    let is_any_here = objectives.iter().any(|active| tables.contains(&active.table));
    if !is_any_here || micro_batches.is_empty() {
        return Ok(Vec::new());
    }
    let joined = match objectives.needs().rollouts {
        // The results of `prepare` for a rollout are already stored with its sequences.
        true => PreparedArrays::default(),
        false => {
            objectives.keeping_state(|objectives| Ok(prepare(models, objectives, micro_batches, marker)?.arrays))?
        }
    };
    marker.backend("the quick laws");
    let objectives = &*objectives;
    let pass = ForwardPass { models, objectives };
    let run = |packed: &PackedBatch| Ok(pass.run(packed, Keep::Nothing)?.batch);
    let whole = objectives.coupled().then(|| join(micro_batches));
    let places: Vec<(&PackedBatch, MicroBatchRange)> = match &whole {
        Some(whole) => vec![(whole, MicroBatchRange::whole(whole))],
        None => micro_batches.iter().zip(MicroBatchRange::all(micro_batches)).collect(),
    };
    let mut results: BTreeMap<usize, Proof> = BTreeMap::new();
    for (place, (packed, part)) in places.iter().enumerate() {
        if objectives.iter().all(|active| !tables.contains(&active.table) || results.contains_key(&active.table)) {
            break;
        }
        let batch: Batch<'_> = match &whole {
            Some(whole) => {
                let batches: Vec<Batch<'_>> = micro_batches.iter().map(run).collect::<Result<_>>()?;
                join_batches(&batches, whole)
            }
            None => run(packed)?,
        };
        // An invalid loss is refused here as in any step.
        objectives.losses(&batch, &joined, *part, &packed.rows, marker)?;
        for (index, active) in objectives.iter().enumerate().filter(|(_, active)| tables.contains(&active.table)) {
            if results.contains_key(&active.table) {
                continue;
            }
            marker.objective(&active.id, "the quick laws");
            let quick = Quick {
                manifest: &active.manifest,
                objective: active.instance.as_ref(),
                plain: plain(setup, active.table),
                batch: &objectives.given(index, &batch, &joined, *part),
                vocabulary: usize::try_from(setup.config.vocab).unwrap_or(usize::MAX),
            };
            let silent = quick.silent_terms().unwrap_or_default();
            if !silent.is_empty() && place + 1 < places.len() {
                continue;
            }
            let line = |line: &Line| format!("{}: {}; expected: {}", line.group, line.detail, meaning(&line.group));
            let contradictions = quick.verify().failures().map(line).collect();
            results.insert(active.table, Proof { table: active.table, id: active.id.clone(), contradictions, silent });
        }
    }
    marker.host();
    Ok(results.into_values().collect())
}

fn meaning(law: &str) -> &'static str {
    QUICK.iter().find(|(name, _)| *name == law).map_or("", |(_, meaning)| meaning)
}

/// Returns the error for the first objective that contradicts a law.
pub(super) fn refusal(results: &[Proof]) -> Option<Error> {
    let Proof { id, contradictions, .. } = results.iter().find(|proof| !proof.contradictions.is_empty())?;
    if contradictions.iter().all(|line| line.contains(NOTHING_LEARNED)) {
        let hint = format!(
            "look at the objective's options (a weight of 0, for example) and at the rows of the first batch (all of one label, for \
             example); `telos plugins verify {id}` tells whether the plugin is wrong; `telos run --unproved` trains anyway and \
             records it in the receipt"
        );
        let error = Error::run(format!("objective \"{id}\" learns nothing from the experiment's first batch"));
        return Some(error.with_details(contradictions.clone()).with_hint(hint));
    }
    let hint = format!(
        "`telos plugins verify {id}` shows the smallest case; `telos run --unproved` trains anyway and records it in the receipt"
    );
    let error = Error::run(format!("objective \"{id}\" breaks a law of objectives on the experiment's first batch"));
    Some(error.with_details(contradictions.clone()).with_hint(hint))
}

/// Returns one line for each objective with terms that could not be compared.
pub(super) fn uncompared(results: &[Proof]) -> Vec<String> {
    let line = |Proof { id, silent, .. }: &Proof| {
        let terms = silent.iter().map(|term| format!("`{term}`")).collect::<Vec<_>>().join(", ");
        format!(
            "objective \"{id}\": the quick laws could not check {terms}: their cotangents are 0 in the batches so far, for example \
             because all rewards are equal; the next start of the run checks them again"
        )
    };
    results.iter().filter(|proof| !proof.silent.is_empty()).map(line).collect()
}

/// Which of a run's objectives are still to be checked against the quick laws.
#[derive(Debug, Default)]
pub(super) struct ToProve {
    /// Indices of the experiment's objectives; `None` before the first check.
    pub(super) tables: Option<BTreeSet<usize>>,
    /// Ids of plugins that contradict a law in any table.
    pub(super) contradicting: BTreeSet<String>,
    /// Windows that were checked.
    pub(super) windows: u64,
    /// The last check of each of `tables` in which a term could not be compared.
    pub(super) silent: BTreeMap<usize, Proof>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a refusal that does not name the law, the command that shows the case, or the flag that accepts it.
    #[test]
    fn a_refusal_names_the_plugin_the_law_and_both_remedies() {
        assert!(refusal(&[]).is_none());
        let results = [Proof {
            table: 0,
            id: "focal".to_owned(),
            contradictions: vec!["cotangents: the sign".to_owned()],
            silent: Vec::new(),
        }];
        let error = refusal(&results).unwrap();
        let report = error.report();
        assert_eq!(error.exit_code(), 1);
        for part in ["\"focal\"", "cotangents: the sign", "telos plugins verify focal", "--unproved", "receipt"] {
            assert!(report.contains(part), "{part} is missing in {report}");
        }
        // Rows of one label, or an option, may be the cause.
        let silent = [Proof { contradictions: vec![format!("gradient: {NOTHING_LEARNED}")], ..results[0].clone() }];
        let report = refusal(&silent).unwrap().report();
        assert!(report.contains("learns nothing from") && !report.contains("contradicts itself"), "{report}");
        assert!(
            report.contains("of one label")
                && report.contains("telos plugins verify focal")
                && report.contains("--unproved"),
            "{report}"
        );
        assert!(QUICK.iter().all(|(law, meaning)| !meaning.is_empty() && super::meaning(law) == *meaning));
    }
}
