//! The law of expectations: the quantities that a manifest declares for step 0 have their declared values.

use crate::Agreement;
use crate::objective::{
    case::{Case, weighted},
    outcome::{Fault, Held, Outcome, fault},
    windows::{Values, sequences},
};
use plugin_api::{
    batch::{Batch, names},
    manifest::{MetricSpec, Normaliser, ObjectiveManifest, Reduction, Requirements},
    objective::{Loss, MetricPart, Objective},
};
use std::collections::BTreeSet;

/// Gotcha 10: the manifest's values are found if all models are equal and all logits are 0.
pub(in crate::objective) fn expectations(case: &Case<'_>) -> Outcome {
    let mut worst = None;
    let mut unhealthy = None;
    for draw in case.windows() {
        // What is expected before the first update is expected in the first step.
        let window = case.fill(&sequences::at_first_step(&case.data(draw)), Values::Uniform)?;
        let mut objective = case.instance()?;
        let batch = case.prepared(objective.as_mut(), &window)?;
        let found =
            check_batch(case.manifest(), &case.requirements, objective.as_ref(), &batch, case.generator().ln_vocab());
        let found = found.map_err(|fault| fault.shown_by(&batch))?;
        unhealthy = unhealthy.or(outside_healthy(case.manifest(), &objective.loss(&batch)?));
        worst = worst.into_iter().chain(found).reduce(Agreement::worse);
    }
    let none = case.manifest().expectations.is_empty();
    let note = none.then(|| "nothing is expected: a wrong sign or scale is not found".to_owned());
    let notes: Vec<String> = note.into_iter().chain(unhealthy).collect();
    Ok(Held { note: notes.join("; "), agreement: worst })
}

/// A note on the first metric outside its declared `healthy` range.
fn outside_healthy(manifest: &ObjectiveManifest, loss: &Loss) -> Option<String> {
    loss.metrics.iter().filter(|part| part.weight > 0.0).find_map(|part| {
        let spec = manifest.metrics.iter().find(|spec| spec.name == part.name)?;
        let ((low, high), value) = (spec.healthy?, metric(spec, part));
        let outside = !(low..=high).contains(&value);
        outside.then(|| {
            format!(
                "before training, the metric `{}` is {value:.4}, outside its healthy range {low} to {high}",
                part.name
            )
        })
    })
}

/// A metric of one window.
fn metric(spec: &MetricSpec, part: &MetricPart) -> f64 {
    if spec.reduction == Reduction::MEAN { part.value / part.weight } else { part.value }
}

/// Whether a batch of equal models with uniform logits gives the manifest's values; the greatest error, if there is any.
pub(in crate::objective) fn check_batch(
    manifest: &ObjectiveManifest,
    requirements: &Requirements,
    objective: &dyn Objective,
    batch: &Batch<'_>,
    ln_vocab: f64,
) -> Result<Option<Agreement>, Fault> {
    let mut worst: Option<Agreement> = None;
    let loss = objective.loss(batch)?;
    let weights = objective.weigh(batch)?;
    for e in &manifest.expectations {
        let should = match e.value.as_str() {
            "ln_vocab" => ln_vocab,
            text => text.parse().map_err(|_| Fault::from(format!("`{text}` is not a number")))?,
        };
        let Some(is) = quantity((manifest, requirements), &loss, batch, &weights, &e.quantity)? else {
            continue;
        };
        let near = (is - should).abs() <= e.tolerance * should.abs().max(1e-9) + 1e-9;
        let agreement = Agreement::new((is - should).abs() / should.abs().max(1e-9), e.tolerance);
        if !near {
            let (name, when) = (&e.quantity, &e.when);
            let text = format!(
                "`{name}` should be {should} (a share of {} more or less) where {when}; it is {is}",
                e.tolerance
            );
            return Err(Fault::measured(text, agreement));
        }
        worst = worst.into_iter().chain([agreement]).reduce(Agreement::worse);
    }
    Ok(worst)
}

/// A normalised quantity; `None` if this instance does not return it, or if nothing that it is divided by counts in this batch.
fn quantity(
    (manifest, requirements): (&ObjectiveManifest, &Requirements),
    loss: &Loss,
    batch: &Batch<'_>,
    weights: &[(String, f64)],
    name: &str,
) -> Result<Option<f64>, Fault> {
    let mut terms = Vec::new();
    for ((term, sum), raw) in weighted(loss).zip(&loss.terms) {
        // An undeclared term is reported by another law.
        let Some(spec) = manifest.terms.iter().find(|t| t.name == term) else {
            continue;
        };
        let by = denominator(requirements.normaliser(spec), batch, weights, term)?;
        if by == 0.0 {
            // Nothing counts here, so that there is no mean to expect.
            continue;
        }
        terms.push((term, sum / by, raw.sum / by));
    }
    if name == "loss" {
        return Ok((!terms.is_empty()).then(|| terms.iter().map(|(_, weighted, _)| weighted).sum()));
    }
    let term = terms.iter().find(|(term, ..)| *term == name).map(|(.., mean)| *mean);
    let mean = |m: &MetricPart| {
        let spec = manifest.metrics.iter().find(|s| s.name == m.name)?;
        Some(metric(spec, m))
    };
    Ok(term.or_else(|| loss.metrics.iter().find(|m| m.name == name && m.weight > 0.0).and_then(mean)))
}

fn denominator(
    (normaliser, times): (&Normaliser, f64),
    batch: &Batch<'_>,
    weights: &[(String, f64)],
    term: &str,
) -> Result<f64, Fault> {
    let counted = sequences::counted(batch)?;
    let count = match normaliser.as_str() {
        "supervised tokens" => sequences::counted_tokens(batch, &counted)?,
        "sequences" => counted.iter().sum(),
        "pairs" | "groups" => {
            let groups = batch.get(names::GROUP)?.iter().zip(&counted).filter(|(_, counts)| **counts != 0.0);
            groups.map(|(group, _)| group.to_bits()).collect::<BTreeSet<u64>>().len() as f64
        }
        _ => match weights.iter().find(|(name, _)| name == term) {
            Some((_, weight)) => *weight,
            None => return fault(format!("`weigh` returns nothing for `{term}`")),
        },
    };
    Ok(count * times)
}
