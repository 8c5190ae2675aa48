//! The laws of what an objective says of itself: that it is complete, true, and all there is.

use super::{Case, Fault, Laws, Outcome, Values, WINDOWS, fault, holds, label, weighted};
use crate::{
    Code,
    batch::Batch,
    manifest::{DataKind, Normaliser, ObjectiveManifest, OptionSpec, Reduction, Statistic},
    objective::Loss,
    options::OptionMap,
};
use serde_json::{Value, json};
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
    if wrong.is_empty() { holds() } else { fault(wrong.join("; ")) }
}

/// What a number in metrics.jsonl may be called: the loss, terms and metrics share one set of names.
fn quantities(manifest: &ObjectiveManifest) -> impl Iterator<Item = &str> {
    let terms = manifest.terms.iter().map(|t| t.name.as_str());
    ["loss"].into_iter().chain(terms).chain(manifest.metrics.iter().map(|m| m.name.as_str()))
}

/// The first case's options, cut down to those that have no default.
pub(super) fn required(laws: &Laws, first: &OptionMap) -> OptionMap {
    let must = |name: &str| laws.manifest.options.iter().any(|o| o.name == name && o.default.is_null());
    first.iter().filter(|(name, _)| must(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Defaults make an instance; illegal values are refused by key.
pub(super) fn options(laws: &Laws) -> Outcome {
    let base = required(laws, laws.options.first().unwrap_or(&OptionMap::new()));
    (laws.create)(&base)?;
    let mut tried = 0;
    for spec in &laws.manifest.options {
        for bad in illegal(spec) {
            refused(laws, &base, &spec.name, bad)?;
            tried += 1;
        }
        if spec.default.is_null() {
            refused(laws, &base, &spec.name, Value::Null)?;
        }
    }
    refused(laws, &base, "no_such_option", json!(1))?;
    Ok(format!("{tried} illegal values refused"))
}

fn refused(laws: &Laws, base: &OptionMap, key: &str, value: Value) -> Result<(), Fault> {
    let mut options = base.clone();
    options.insert(key.to_owned(), value);
    match (laws.create)(&options) {
        Ok(_) => fault(format!("{} is accepted", label(&options))),
        Err(e) if e.code != Code::OPTION => fault(format!("{} is refused with {:?}: {e}", label(&options), e.code)),
        Err(e) if !e.message.contains(key) => fault(format!("{} is refused without its key: {e}", label(&options))),
        Err(_) => Ok(()),
    }
}

/// Values that the declaration forbids.
fn illegal(spec: &OptionSpec) -> Vec<Value> {
    let listed = |value: Value| if spec.kind.ends_with("list") { json!([value]) } else { value };
    let mut values = vec![json!({"a": "table"}), json!([[]])];
    values.extend(match spec.kind.as_str() {
        "bool" => vec![json!(1), json!("true")],
        "int" => vec![json!(1.5), json!("1"), json!(true)],
        "float" => vec![json!("1"), json!(true)],
        "string" => vec![json!(1), json!(true)],
        "float list" => vec![json!(1.0), json!(["1"])],
        _ => vec![json!("a"), json!([1])],
    });
    let number = |x: f64| if spec.kind.starts_with("int") { json!(x as i64) } else { json!(x) };
    values.extend(spec.min.map(|min| listed(number(min - 1.0))));
    values.extend(spec.max.map(|max| listed(number(max + 1.0))));
    if !spec.choices.is_empty() {
        values.push(listed(json!("none of these")));
    }
    values
}

/// Whether a value has the declared type and range.
fn within(spec: &OptionSpec, value: &Value) -> bool {
    let number = |v: &Value| {
        v.as_f64().is_some_and(|x| (spec.min.unwrap_or(f64::MIN)..=spec.max.unwrap_or(f64::MAX)).contains(&x))
    };
    let text = |v: &Value| {
        v.as_str().is_some_and(|t| spec.choices.is_empty() || spec.choices.iter().any(|choice| choice == t))
    };
    let all = |of: &dyn Fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(of));
    match spec.kind.as_str() {
        "bool" => value.is_boolean(),
        "int" => value.is_i64() && number(value),
        "float" => number(value),
        "string" => text(value),
        "float list" => all(&number),
        "string list" => all(&text),
        _ => false,
    }
}

/// What an instance reads and returns stands in the manifest. Undeclared reads fail because the batch holds nothing else.
pub(super) fn declared(case: &Case<'_>, returned: &mut Names) -> Outcome {
    let manifest = case.manifest();
    for draw in 0..WINDOWS {
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

/// Gotcha 10: the manifest's numbers come out where all models are equal and all logits 0.
pub(super) fn expectations(case: &Case<'_>) -> Outcome {
    let manifest = case.manifest();
    for draw in 0..WINDOWS {
        let window = case.fill(&case.data(draw), Values::Uniform)?;
        let mut objective = case.instance()?;
        let batch = match manifest.data == DataKind::PROMPT {
            true => super::sequences::prepared(objective.as_mut(), &window)?,
            false => window,
        };
        let loss = objective.loss(&batch)?;
        let weights = objective.weigh(&batch)?;
        for e in &manifest.expectations {
            let should = match e.value.as_str() {
                "ln_vocab" => case.laws.generator.ln_vocab(),
                text => text.parse().map_err(|_| Fault(format!("`{text}` is no number")))?,
            };
            let Some(is) = quantity(manifest, &loss, &batch, &weights, &e.quantity)? else {
                continue;
            };
            let near = (is - should).abs() <= e.tolerance * should.abs().max(1e-9) + 1e-9;
            if !near {
                return fault(format!("`{}` should be {should} (within {} of it), is {is}", e.quantity, e.tolerance));
            }
        }
    }
    holds()
}

/// A normalised quantity; `None` where this instance does not return it.
fn quantity(
    manifest: &ObjectiveManifest,
    loss: &Loss,
    batch: &Batch<'_>,
    weights: &[(String, f64)],
    name: &str,
) -> Result<Option<f64>, Fault> {
    let mut terms = Vec::new();
    for ((term, sum), raw) in weighted(loss).zip(&loss.terms) {
        let spec = manifest.terms.iter().find(|t| t.name == term);
        let by = denominator(spec.map_or(&Normaliser::CUSTOM, |t| &t.normaliser), batch, weights, term)?;
        terms.push((term, sum / by, raw.sum / by));
    }
    if name == "loss" {
        return Ok(Some(terms.iter().map(|(_, weighted, _)| weighted).sum()));
    }
    let term = terms.iter().find(|(term, ..)| *term == name).map(|(.., mean)| *mean);
    let mean = |m: &crate::objective::MetricPart| {
        let spec = manifest.metrics.iter().find(|s| s.name == m.name)?;
        Some(if spec.reduction == Reduction::MEAN { m.value / m.weight } else { m.value })
    };
    Ok(term.or_else(|| loss.metrics.iter().find(|m| m.name == name && m.weight > 0.0).and_then(mean)))
}

fn denominator(
    normaliser: &Normaliser,
    batch: &Batch<'_>,
    weights: &[(String, f64)],
    term: &str,
) -> Result<f64, Fault> {
    let groups = || -> Result<BTreeSet<u64>, Fault> {
        Ok(batch.get(crate::batch::names::GROUP)?.iter().map(|g| g.to_bits()).collect())
    };
    Ok(match normaliser.as_str() {
        "supervised tokens" => batch.mask()?.iter().sum(),
        "sequences" => batch.sequences()? as f64,
        "pairs" | "groups" => groups()?.len() as f64,
        _ => match weights.iter().find(|(name, _)| name == term) {
            Some((_, weight)) => *weight,
            None => return fault(format!("`weigh` does not answer for `{term}`")),
        },
    })
}
