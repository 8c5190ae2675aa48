//! A loss in a form that can be split, joined and compared.

use super::{
    outcome::{Fault, fault},
    windows::sequences,
};
use crate::Agreement;
use plugin_api::{
    batch::{Batch, Scope, names},
    manifest::{ObjectiveManifest, Reduction},
    objective::Loss,
};
use std::collections::BTreeMap;

/// How closely two numbers must agree.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Alike {
    /// Equal.
    Exactly,
    /// Equal up to the order of additions.
    Rounding,
}

impl Alike {
    pub(super) fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Alike::Exactly => a == b || (a.is_nan() && b.is_nan()),
            Alike::Rounding => (a - b).abs() <= ROUNDING * a.abs().max(b.abs()).max(1.0),
        }
    }

    /// The difference of two numbers, in the measure of [`Alike::holds`].
    pub(super) fn measure(self, a: f64, b: f64) -> Agreement {
        let apart = if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() };
        match self {
            Alike::Exactly => Agreement::new(apart, 0.0),
            Alike::Rounding => Agreement::new(apart / a.abs().max(b.abs()).max(1.0), ROUNDING),
        }
    }
}

/// The allowed change by the order of additions, relative to the number, or to 1 if that is greater.
const ROUNDING: f64 = 1e-10;

/// A loss by name.
#[derive(Clone)]
pub(super) struct Flat {
    /// Coefficient and sum.
    pub(super) terms: BTreeMap<String, (f64, f64)>,
    /// Value and weight of the metrics with a non-zero weight.
    pub(super) metrics: BTreeMap<String, (f64, f64)>,
    /// One array `term/statistic` for every term and differentiable statistic; 0 where the loss returned none.
    pub(super) cotangents: Batch<'static>,
}

impl Flat {
    /// Splits `loss`, the loss of `batch`, into its parts.
    pub(super) fn of(manifest: &ObjectiveManifest, loss: &Loss, batch: &Batch<'_>) -> Result<Self, Fault> {
        let terms = loss.terms.iter().map(|t| (t.name.clone(), (t.coefficient, t.sum))).collect();
        let counts = |m: &&plugin_api::objective::MetricPart| m.weight != 0.0;
        let weight = |m: &plugin_api::objective::MetricPart| match is_mean(manifest, &m.name) {
            true => m.weight,
            false => 1.0,
        };
        let metrics = loss.metrics.iter().filter(counts).map(|m| (m.name.clone(), (m.value, weight(m)))).collect();
        let offsets = batch.get(names::OFFSETS)?.to_vec();
        let mut cotangents = Batch::new().with(names::OFFSETS, Scope::BATCH, offsets);
        for term in &loss.terms {
            for array in batch.arrays().iter().filter(|a| a.differentiable) {
                let found = term.cotangents.iter().find(|(name, _)| *name == array.name);
                let data = found.map_or_else(|| vec![0.0; array.data.len()], |(_, data)| data.clone());
                if data.len() != array.data.len() {
                    let (n, m) = (data.len(), array.data.len());
                    return fault(format!("`{}` has {n} cotangents for {m} values of `{}`", term.name, array.name));
                }
                let mut one = sequences::with_data(array, data);
                one.name = format!("{}/{}", term.name, array.name).into();
                cotangents = cotangents.with_array(one);
            }
        }
        Ok(Self { terms, metrics, cotangents })
    }

    /// Joins the losses of a window's pieces, as the host does.
    pub(super) fn join(manifest: &ObjectiveManifest, parts: &[Flat]) -> Result<Self, Fault> {
        let Some((first, rest)) = parts.split_first() else {
            return fault("a window without pieces");
        };
        let mut whole = first.clone();
        for part in rest {
            if let Some(name) = first.terms.keys().find(|name| !part.terms.contains_key(*name)) {
                return fault(format!("term `{name}` is returned for some batches only"));
            }
            for (name, (coefficient, sum)) in &part.terms {
                let Some(known) = whole.terms.get_mut(name) else {
                    return fault(format!("term `{name}` is returned for some batches only"));
                };
                if known.0 != *coefficient {
                    return fault(format!(
                        "the coefficient of `{name}` is {} for one batch, {coefficient} for another",
                        known.0
                    ));
                }
                known.1 += sum;
            }
            for (name, (value, weight)) in &part.metrics {
                let reduction = manifest.metrics.iter().find(|m| m.name == *name).map(|m| &m.reduction);
                let known = whole.metrics.entry(name.clone());
                let known = known.and_modify(|(v, w)| {
                    match reduction {
                        Some(r) if *r == Reduction::MIN => *v = v.min(*value),
                        Some(r) if *r == Reduction::MAX => *v = v.max(*value),
                        _ => *v += value,
                    }
                    if is_mean(manifest, name) {
                        *w += weight;
                    }
                });
                known.or_insert((*value, *weight));
            }
            for array in part.cotangents.arrays().iter().filter(|a| a.name != names::OFFSETS) {
                let before = whole.cotangents.get(&array.name)?;
                let data = [before, &array.data].concat();
                whole.cotangents = whole.cotangents.with_array(sequences::with_data(array, data));
            }
        }
        Ok(whole)
    }

    /// Compares all numbers of two losses; `self` is the expected one.
    pub(super) fn same(&self, found: &Flat, alike: Alike) -> Result<Agreement, Fault> {
        let terms = pairs("term", &self.terms, &found.terms, ["coefficient", "sum"], alike)?;
        let metrics = pairs("metric", &self.metrics, &found.metrics, ["value", "weight"], alike)?;
        Ok(terms.worse(metrics).worse(self.same_cotangents(found, alike)?))
    }

    /// Compares only cotangents.
    pub(super) fn same_cotangents(&self, found: &Flat, alike: Alike) -> Result<Agreement, Fault> {
        let mut worst = alike.measure(0.0, 0.0);
        for array in self.cotangents.arrays().iter().filter(|a| a.name != names::OFFSETS) {
            let other = found.cotangents.get(&array.name)?;
            worst = worst.worse(numbers(&format!("cotangent `{}`", array.name), &array.data, other, alike)?);
        }
        Ok(worst)
    }
}

/// Compares two arrays.
pub(super) fn numbers(what: &str, expected: &[f64], found: &[f64], alike: Alike) -> Result<Agreement, Fault> {
    if expected.len() != found.len() {
        return fault(format!("{what}: expected {} numbers, found {}", expected.len(), found.len()));
    }
    match expected.iter().zip(found).position(|(a, b)| !alike.holds(*a, *b)) {
        None => {
            let measured = expected.iter().zip(found).map(|(a, b)| alike.measure(*a, *b));
            Ok(measured.fold(alike.measure(0.0, 0.0), Agreement::worse))
        }
        Some(i) => Err(Fault::measured(
            format!("{what}[{i}]: expected {}, found {}", expected[i], found[i]),
            alike.measure(expected[i], found[i]),
        )),
    }
}

fn pairs(
    kind: &str,
    expected: &BTreeMap<String, (f64, f64)>,
    found: &BTreeMap<String, (f64, f64)>,
    parts: [&str; 2],
    alike: Alike,
) -> Result<Agreement, Fault> {
    let mut worst = alike.measure(0.0, 0.0);
    if let Some(name) = found.keys().find(|name| !expected.contains_key(*name)) {
        return fault(format!("unexpected {kind} `{name}`"));
    }
    for (name, should) in expected {
        let Some(is) = found.get(name) else {
            return fault(format!("{kind} `{name}` is missing"));
        };
        for (part, a, b) in [(parts[0], should.0, is.0), (parts[1], should.1, is.1)] {
            if !alike.holds(a, b) {
                let text = format!("{kind} `{name}`: {part} should be {a}, is {b}");
                return Err(Fault::measured(text, alike.measure(a, b)));
            }
            worst = worst.worse(alike.measure(a, b));
        }
    }
    Ok(worst)
}

/// Only the weights of means add up.
fn is_mean(manifest: &ObjectiveManifest, metric: &str) -> bool {
    manifest.metrics.iter().any(|m| m.name == metric && m.reduction == Reduction::MEAN)
}
