//! The laws of what an objective says of itself: that it is complete, true, and all there is.

use super::{Case, Fault, Laws, Outcome, fault, holds, options::within};
use crate::{
    contract,
    manifest::{DataKind, Normaliser, ObjectiveManifest, Reduction, Statistic},
};
use std::collections::BTreeSet;

/// Terms and metrics seen in results.
#[derive(Default)]
pub(super) struct Names {
    terms: BTreeSet<String>,
    metrics: BTreeSet<String>,
}

/// Everything a user reads is there, and nothing contradicts itself. Reports all mistakes at once.
pub(super) fn manifest(laws: &Laws) -> Outcome {
    let m = &laws.manifest;
    let mut wrong = Vec::new();
    let mut want = |ok: bool, what: String| {
        if !ok {
            wrong.push(what);
        }
    };
    want(!m.summary.trim().is_empty(), "no summary".into());
    want(!m.formula.trim().is_empty(), "no formula".into());
    want(!m.terms.is_empty(), "no terms".into());
    want(DataKind::ALL.contains(&m.data.as_str()), format!("data kind `{}` is unknown", m.data));
    for term in &m.terms {
        want(!term.meaning.trim().is_empty(), format!("term `{}` has no meaning", term.name));
        let known = Normaliser::ALL.contains(&term.normaliser.as_str());
        want(known, format!("term `{}`: normaliser `{}` is unknown", term.name, term.normaliser));
    }
    for metric in &m.metrics {
        want(!metric.meaning.trim().is_empty(), format!("metric `{}` has no meaning", metric.name));
        let known = Reduction::ALL.contains(&metric.reduction.as_str());
        want(known, format!("metric `{}`: reduction `{}` is unknown", metric.name, metric.reduction));
        let ordered = metric.healthy.is_none_or(|(low, high)| low <= high);
        want(ordered, format!("metric `{}`: its healthy range is empty", metric.name));
    }
    for role in &m.roles {
        for statistic in &role.statistics {
            let known = Statistic::ALL.contains(&statistic.as_str());
            want(known, format!("role `{}`: statistic `{statistic}` is unknown", role.name));
        }
    }
    for option in &m.options {
        want(!option.meaning.trim().is_empty(), format!("option `{}` has no meaning", option.name));
        let fits = option.default.is_null() || within(option, &option.default);
        want(fits, format!("option `{}`: its default {} is not legal", option.name, option.default));
    }
    for e in &m.expectations {
        want(
            quantities(m).any(|q| q == e.quantity),
            format!("an expectation of `{}`, which is nothing declared", e.quantity),
        );
        want(!e.when.trim().is_empty(), format!("the expectation of `{}` does not say when", e.quantity));
        want(e.value == "ln_vocab" || e.value.parse::<f64>().is_ok(), format!("`{}` is no expected value", e.value));
    }
    for (what, names) in [
        ("quantity", quantities(m).collect::<Vec<_>>()),
        ("option", m.options.iter().map(|o| o.name.as_str()).collect()),
        ("role", m.roles.iter().map(|r| r.name.as_str()).collect()),
    ] {
        for (i, name) in names.iter().enumerate() {
            want(!name.trim().is_empty(), format!("a {what} has no name"));
            want(!names[..i].contains(name), format!("{what} `{name}` is declared twice"));
        }
    }
    for name in quantities(m).skip(1).filter(|name| contract::host_owns_metric(name)) {
        wrong.push(format!("`{name}` is what the host calls a number of its own"));
    }
    if wrong.is_empty() { holds() } else { fault(wrong.join("; ")) }
}

/// What a number in metrics.jsonl may be called: the loss, terms and metrics share one set of names.
fn quantities(manifest: &ObjectiveManifest) -> impl Iterator<Item = &str> {
    let terms = manifest.terms.iter().map(|t| t.name.as_str());
    ["loss"].into_iter().chain(terms).chain(manifest.metrics.iter().map(|m| m.name.as_str()))
}

/// What an instance reads and returns stands in the manifest. Undeclared reads fail because the batch holds nothing else.
pub(super) fn declared(case: &Case<'_>, returned: &mut Names) -> Outcome {
    let manifest = case.manifest();
    for draw in case.windows() {
        let (objective, batch) = case.ready(draw)?;
        let loss = objective.loss(&batch)?;
        returned.terms.extend(loss.terms.iter().map(|t| t.name.clone()));
        returned.metrics.extend(loss.metrics.iter().filter(|m| m.weight > 0.0).map(|m| m.name.clone()));
        contract::loss(manifest, &case.requirements, &batch, &loss).map_err(|why| Fault::from(why.text))?;
    }
    contract::requirements(manifest, &case.requirements).map_err(|why| Fault::from(why.text))?;
    holds()
}

/// Nothing is declared that none of the cases returns.
pub(super) fn used(laws: &Laws, returned: &Names) -> Outcome {
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
