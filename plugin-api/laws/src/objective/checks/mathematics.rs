//! The laws of the loss: sums over any split, masks, order, emptiness, linearity. Derivatives are in [`super::derivatives`].

use crate::Agreement;
use crate::objective::{
    case::Case,
    compare::{Alike, Flat, numbers},
    outcome::{Fault, Held, Outcome, fault, holds},
    windows::{Values, sequences},
};
use plugin_api::{
    batch::{Batch, Scope, names},
    manifest::Normaliser,
    objective::Objective,
};

/// Gotcha 1: the sums of a window's pieces add up to those of the window.
pub(in crate::objective) fn additivity(case: &Case<'_>) -> Outcome {
    if case.coupled() {
        return Ok(Held::note("coupled: not cut"));
    }
    let mut worst = Agreement::new(0.0, 1e-10);
    for draw in case.windows() {
        let (objective, batch) = case.ready(draw)?;
        let whole = case.loss(objective.as_ref(), &batch)?;
        let units = case.units(&batch)?;
        let (front, back) = units.split_at(units.len() / 3);
        for cut in [units.clone(), vec![front.concat(), back.concat()]] {
            let losses = cut.iter().map(|piece| {
                let piece = sequences::select(&batch, piece)?;
                case.loss(objective.as_ref(), &piece)
            });
            let joined = Flat::join(case.manifest(), &losses.collect::<Result<Vec<_>, _>>()?)?;
            // The pieces' cotangents are in the order of the split.
            let cotangents = sequences::select(&whole.cotangents, &cut.concat())?;
            let expected = Flat { cotangents, ..whole.clone() };
            let named = |fault: Fault| fault.within(&format!("cut into {}", cut.len()));
            worst = worst.worse(expected.same(&joined, Alike::Rounding).map_err(named)?);
        }
    }
    Ok(Held::measured(worst))
}

/// The order of sequences does not matter.
pub(in crate::objective) fn order(case: &Case<'_>) -> Outcome {
    let mut worst = Agreement::new(0.0, 1e-10);
    for draw in case.windows() {
        let (objective, batch) = case.ready(draw)?;
        let whole = case.loss(objective.as_ref(), &batch)?;
        let backwards: Vec<usize> = (0..batch.sequences()?).rev().collect();
        let found = case.loss(objective.as_ref(), &sequences::select(&batch, &backwards)?)?;
        let cotangents = sequences::select(&whole.cotangents, &backwards)?;
        let expected = Flat { cotangents, ..whole };
        let same = expected
            .same(&found, Alike::Rounding)
            .map_err(|fault| fault.within("sequences reversed").shown_by(&batch))?;
        worst = worst.worse(same);
    }
    Ok(Held::measured(worst))
}

/// Gotchas 8 and 9: nothing behind the mask reaches value, cotangents or metrics.
pub(in crate::objective) fn masked(case: &Case<'_>) -> Outcome {
    for draw in case.windows() {
        let (objective, batch) = case.ready(draw)?;
        let clean = case.loss(objective.as_ref(), &batch)?;
        zero_behind_mask(&clean, batch.mask()?)?;
        for (what, value) in poisons() {
            let hidden = sequences::poison(&batch, &case.requirements.statistics, value)?;
            let named = |fault: Fault| fault.within(&format!("{what} behind the mask")).shown_by(&hidden);
            let found = case.loss(objective.as_ref(), &hidden).map_err(named)?;
            zero_behind_mask(&found, hidden.mask()?).map_err(named)?;
            clean.same(&found, Alike::Exactly).map_err(named)?;
            if case.prepares_statistics() {
                prepares_the_same(case, draw, value).map_err(named)?;
            }
        }
    }
    holds()
}

type Poison = fn(&mut telos_random::SplitMix64) -> f64;

fn poisons() -> [(&'static str, Poison); 5] {
    [
        ("another number", |rng| rng.between(-3.0, -0.1)),
        ("a great number", |_| 1e300),
        ("NaN", |_| f64::NAN),
        ("infinity", |_| f64::INFINITY),
        ("minus infinity", |_| f64::NEG_INFINITY),
    ]
}

/// Cotangents per token are exactly 0 where the mask is 0.
fn zero_behind_mask(loss: &Flat, mask: &[f64]) -> Result<(), Fault> {
    for array in loss.cotangents.arrays().iter().filter(|a| a.scope == Scope::TOKEN) {
        let loud = |i: &usize| mask[i / array.cols] == 0.0 && array.data[*i] != 0.0;
        if let Some(i) = (0..array.data.len()).find(loud) {
            return fault(format!("cotangent `{}`[{i}] is {} where the mask is 0", array.name, array.data[i]));
        }
    }
    Ok(())
}

/// The results of `prepare` for supervised tokens do not depend on the others.
fn prepares_the_same(case: &Case<'_>, draw: u64, value: Poison) -> Result<(), Fault> {
    let rollouts = case.fill(&case.data(draw), Values::Random(draw))?;
    let hidden = sequences::poison(&rollouts, &case.requirements.statistics, value)?;
    let expected = case.instance()?.prepare(&rollouts)?;
    let found = case.instance()?.prepare(&hidden)?;
    let mask = rollouts.mask()?;
    for array in expected.arrays() {
        let seen = |data: &[f64]| -> Vec<f64> {
            let supervised = |i: usize| array.scope != Scope::TOKEN || mask.get(i / array.cols.max(1)) == Some(&1.0);
            data.iter().enumerate().filter(|(i, _)| supervised(*i)).map(|(_, x)| *x).collect()
        };
        let what = format!("prepared `{}`", array.name);
        numbers(&what, &seen(&array.data), &seen(found.get(&array.name)?), Alike::Exactly)?;
    }
    Ok(())
}

/// Gotcha 5: an empty batch adds nothing, and no term disappears.
pub(in crate::objective) fn empty(case: &Case<'_>) -> Outcome {
    let first = case.first();
    let full = case.ready(first)?;
    let full = case.loss(full.0.as_ref(), &full.1)?;
    let window = case.fill(&case.data(first), Values::Random(first))?;
    let unsupervised = sequences::unsupervised(&window)?;
    let poisoned = sequences::poison(&unsupervised, &case.requirements.statistics, |_| f64::NAN)?;
    let cases = [
        ("no sequence", sequences::select(&window, &[])?),
        ("nothing supervised", unsupervised),
        ("NaNs only", poisoned),
    ];
    for (what, batch) in cases {
        let (objective, batch) =
            case.ready_from(&batch, first).map_err(|e| Fault::from(e).within(what).shown_by(&batch))?;
        nothing(case, &full, objective.as_ref(), &batch).map_err(|fault| fault.within(what).shown_by(&batch))?;
    }
    holds()
}

/// Whether the loss of a batch without supervised tokens has every term of `full`, and only finite numbers.
fn nothing(case: &Case<'_>, full: &Flat, objective: &dyn Objective, batch: &Batch<'_>) -> Result<(), Fault> {
    let loss = case.loss(objective, batch)?;
    if let Some(term) = full.terms.keys().find(|name| !loss.terms.contains_key(*name)) {
        return fault(format!("the term `{term}` is missing"));
    }
    let none = batch.sequences()? == 0;
    for (name, (_, sum)) in &loss.terms {
        let spec = case.manifest().terms.iter().find(|t| t.name == *name);
        let by_token = spec.is_some_and(|t| *case.requirements.normaliser(t).0 == Normaliser::SUPERVISED_TOKENS);
        if !sum.is_finite() || ((none || by_token) && *sum != 0.0) {
            return fault(format!("the sum of `{name}` is {sum}"));
        }
    }
    if let Some((name, (value, _))) = loss.metrics.iter().find(|(_, (value, _))| !value.is_finite()) {
        return fault(format!("the metric `{name}` is {value}, with weight"));
    }
    for array in loss.cotangents.arrays().iter().filter(|a| a.name != names::OFFSETS) {
        if let Some(i) = array.data.iter().position(|x| !x.is_finite()) {
            return fault(format!("the cotangent `{}`[{i}] is {}", array.name, array.data[i]));
        }
    }
    Ok(())
}

/// If the loss is declared as linear, cotangents depend only on the data.
pub(in crate::objective) fn linear(case: &Case<'_>) -> Outcome {
    let mut constant = true;
    for draw in case.windows() {
        let (objective, batch) = case.ready(draw)?;
        let first = case.loss(objective.as_ref(), &batch)?;
        for values in [Values::Random(draw + 100), Values::Random(draw + 200), Values::Zero] {
            let filled = case.fill(&batch, values)?;
            let other = case.loss(objective.as_ref(), &filled)?;
            match first.same_cotangents(&other, Alike::Rounding) {
                Err(fault) if case.requirements.linear => {
                    return Err(fault.within("`linear` is not true: with other statistics").shown_by(&filled));
                }
                same => constant &= same.is_ok(),
            }
        }
    }
    let modest = constant && !case.requirements.linear;
    Ok(Held::note(if modest { "it seems to be linear; saying so would spare a pass" } else { "" }))
}
