//! The laws of what an objective says of itself: that it is complete, true, and all there is.

use super::{Case, Fault, Laws, Outcome, fault, holds, options::within};
use crate::{
    batch::Batch,
    manifest::{DataKind, Normaliser, ObjectiveManifest, Reduction, Statistic},
    objective::Loss,
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
    let hosts = |name: &&str| RESERVED.contains(name) || name.starts_with("eval/") || name.starts_with("critic/grad");
    for name in quantities(m).skip(1).filter(hosts) {
        wrong.push(format!("`{name}` is what the host calls a number of its own"));
    }
    if wrong.is_empty() { holds() } else { fault(wrong.join("; ")) }
}

/// Numbers of metrics.jsonl that the host writes itself.
const RESERVED: &[&str] =
    &["loss", "step", "kind", "lr", "grad_norm", "tokens", "context", "refused", "token_accuracy"];

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
        returns(manifest, &loss, &batch)?;
    }
    let requirements = &case.requirements;
    if !(requirements.temperature.is_finite() && requirements.temperature > 0.0) {
        return fault(format!("temperature {} is not above 0", requirements.temperature));
    }
    for (i, name) in requirements.statistics.iter().enumerate() {
        if requirements.statistics[..i].contains(name) {
            return fault(format!("statistic `{name}` is required twice"));
        }
        if !may_read(manifest, name) {
            return fault(format!("statistic `{name}` is required, but no role of the manifest has it"));
        }
    }
    holds()
}

fn may_read(manifest: &ObjectiveManifest, statistic: &str) -> bool {
    if manifest.roles.is_empty() {
        return statistic == Statistic::LOGP.as_str();
    }
    let (role, base) = statistic.rsplit_once('.').unwrap_or(("policy", statistic));
    manifest.roles.iter().any(|r| r.name == role && r.statistics.iter().any(|s| s.as_str() == base))
}

fn returns(manifest: &ObjectiveManifest, loss: &Loss, batch: &Batch<'_>) -> Result<(), Fault> {
    for (i, term) in loss.terms.iter().enumerate() {
        let name = &term.name;
        if !manifest.terms.iter().any(|t| t.name == *name) || loss.terms[..i].iter().any(|t| t.name == *name) {
            return fault(format!("term `{name}` is not declared, or there twice"));
        }
        if !term.coefficient.is_finite() || !term.sum.is_finite() {
            return fault(format!("term `{name}`: coefficient {}, sum {}", term.coefficient, term.sum));
        }
        for (j, (statistic, values)) in term.cotangents.iter().enumerate() {
            let Some(array) = batch.find(statistic).filter(|a| a.differentiable) else {
                return fault(format!(
                    "term `{name}` has a cotangent of `{statistic}`, which no model that trains gives"
                ));
            };
            if values.len() != array.data.len() {
                let (n, m) = (values.len(), array.data.len());
                return fault(format!("term `{name}` has {n} cotangents for {m} values of `{statistic}`"));
            }
            if term.cotangents[..j].iter().any(|(other, _)| other == statistic) {
                return fault(format!("term `{name}` has two cotangents of `{statistic}`"));
            }
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return fault(format!("term `{name}`: cotangent `{statistic}`[{i}] is {}", values[i]));
            }
        }
    }
    for (i, metric) in loss.metrics.iter().enumerate() {
        let name = &metric.name;
        if !manifest.metrics.iter().any(|m| m.name == *name) || loss.metrics[..i].iter().any(|m| m.name == *name) {
            return fault(format!("metric `{name}` is not declared, or there twice"));
        }
        if !(metric.weight >= 0.0 && metric.weight.is_finite()) || (metric.weight > 0.0 && !metric.value.is_finite()) {
            return fault(format!("metric `{name}`: value {}, weight {}", metric.value, metric.weight));
        }
    }
    Ok(())
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
