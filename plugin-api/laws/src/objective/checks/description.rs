//! The laws of an objective's description: it is complete and true, and everything that is returned is declared.

use crate::objective::{
    case::Case,
    laws::Laws,
    outcome::{Fault, Outcome, fault, holds},
};
use crate::options::within;
use plugin_api::{
    batch::{Batch, names},
    contract,
    manifest::{DataKind, Normaliser, TermSpec},
};
use std::collections::BTreeSet;

/// Terms and metrics seen in results.
#[derive(Default)]
pub(in crate::objective) struct Names {
    terms: BTreeSet<String>,
    metrics: BTreeSet<String>,
}

/// Everything that a user reads is present, and nothing contradicts itself. Reports all mistakes at once.
pub(in crate::objective) fn manifest(laws: &Laws) -> Outcome {
    let m = &laws.manifest;
    contract::finite_manifest(m).map_err(|e| e.message)?;
    let mut wrong = contract::manifest(m);
    let mut want = |ok: bool, what: String| {
        if !ok {
            wrong.push(what);
        }
    };
    want(!m.summary.trim().is_empty(), "no summary".into());
    want(!m.formula.trim().is_empty(), "no formula".into());
    want(DataKind::ALL.contains(&m.data.as_str()), format!("data kind `{}` is unknown", m.data));
    for term in &m.terms {
        want(!term.meaning.trim().is_empty(), format!("term `{}` has no meaning", term.name));
    }
    for metric in &m.metrics {
        want(!metric.meaning.trim().is_empty(), format!("metric `{}` has no meaning", metric.name));
        let ordered = metric.healthy.is_none_or(|(low, high)| low <= high);
        want(ordered, format!("metric `{}`: its healthy range is empty", metric.name));
    }
    for option in &m.options {
        want(!option.meaning.trim().is_empty(), format!("option `{}` has no meaning", option.name));
        let fits = option.default.is_null() || within(option, &option.default);
        want(fits, format!("option `{}`: its default {} is not legal", option.name, option.default));
    }
    for e in &m.expectations {
        want(
            !e.when.trim().is_empty(),
            format!("the expectation of `{}` does not state its condition (`when`)", e.quantity),
        );
    }
    if wrong.is_empty() { holds() } else { fault(wrong.join("; ")) }
}

/// Everything that an instance returns is declared in the manifest, and what it reads in its requirements: other reads fail because
/// the batch holds nothing else.
pub(in crate::objective) fn declared(case: &Case<'_>, returned: &mut Names) -> Outcome {
    let manifest = case.manifest();
    for draw in case.windows() {
        let (objective, batch) = case.ready(draw)?;
        let loss = objective.loss(&batch)?;
        returned.terms.extend(loss.terms.iter().map(|t| t.name.clone()));
        returned.metrics.extend(loss.metrics.iter().filter(|m| m.weight > 0.0).map(|m| m.name.clone()));
        contract::loss(manifest, &case.requirements, &batch, &loss).map_err(|why| Fault::from(why.text))?;
        countable(case, &batch)?;
    }
    contract::requirements(manifest, &case.requirements).map_err(|why| Fault::from(why.text))?;
    holds()
}

/// Whether the data have the units that terms are divided by: only sequences with `group` have pairs or groups.
fn countable(case: &Case<'_>, batch: &Batch<'_>) -> Result<(), Fault> {
    let (manifest, requirements) = (case.manifest(), &case.requirements);
    let by_group = |term: &&TermSpec| [Normaliser::PAIRS, Normaliser::GROUPS].contains(requirements.normaliser(term).0);
    match manifest.terms.iter().find(by_group) {
        Some(term) if batch.find(names::GROUP).is_none() => fault(format!(
            "the term `{}` is divided by the number of {}, but {} data has no array `group` to count",
            term.name,
            requirements.normaliser(term).0,
            manifest.data
        )),
        _ => Ok(()),
    }
}

/// Every declared term and metric is returned by at least one case.
pub(in crate::objective) fn used(laws: &Laws, returned: &Names) -> Outcome {
    let terms =
        laws.manifest.terms.iter().filter(|t| !returned.terms.contains(&t.name)).map(|t| format!("term `{}`", t.name));
    let metrics = laws.manifest.metrics.iter().filter(|m| !returned.metrics.contains(&m.name));
    let unused: Vec<_> = terms.chain(metrics.map(|m| format!("metric `{}`", m.name))).collect();
    if unused.is_empty() {
        return holds();
    }
    fault(format!(
        "declared, but returned in none of the cases: {} (add options that bring it about)",
        unused.join(", ")
    ))
}
