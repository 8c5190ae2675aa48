//! The laws of `prepare` and `compose`: the arrays that an objective adds to a window, and the sequences it makes from rows.

use crate::Agreement;
use crate::objective::{
    case::Case,
    compare::{Alike, numbers},
    outcome::{Fault, Held, Outcome, fault, holds},
    windows::{Values, sequences},
};
use plugin_api::{
    batch::{Array, Batch, Scope, names},
    contract::{self, Limits},
    manifest::DataKind,
    objective::Objective,
};
use std::collections::{BTreeMap, BTreeSet};

/// The arrays from `prepare` fit the window, have names of their own, and follow their sequences.
pub(in crate::objective) fn prepare(case: &Case<'_>) -> Outcome {
    let mut worst = Agreement::new(0.0, 1e-10);
    let mut count = 0;
    for draw in case.windows() {
        let window = case.fill(&case.data(draw), Values::Random(draw))?;
        let seen = case.arrays_for_prepare(&window);
        let made = case.instance()?.prepare(&seen)?;
        count = made.arrays().len();
        contract::prepared(&seen, &made, case.rollouts())
            .map_err(|why| Fault::from(format!("`prepare`: {}", why.text)).shown_by(&seen))?;
        repeats(case, &seen, &made)?;
        worst = worst.worse(follows(case, &seen, &made).map_err(|fault| fault.shown_by(&seen))?);
    }
    let note = if count == 0 { String::new() } else { format!("{count} arrays") };
    Ok(Held { note, agreement: (count > 0).then_some(worst) })
}

/// Another instance returns the same bits.
fn repeats(case: &Case<'_>, seen: &Batch<'_>, made: &Batch<'_>) -> Result<(), Fault> {
    let again = case.instance()?.prepare(seen)?;
    for array in made.arrays() {
        let what = format!("another instance: prepared `{}`", array.name);
        numbers(&what, &array.data, again.get(&array.name)?, Alike::Exactly)?;
    }
    Ok(())
}

/// The order of groups and rows does not matter: an array from `prepare` follows its sequences.
fn follows(case: &Case<'_>, seen: &Batch<'_>, made: &Batch<'_>) -> Result<Agreement, Fault> {
    let backwards: Vec<usize> = (0..seen.sequences()?).rev().collect();
    let found = case.instance()?.prepare(&sequences::select(seen, &backwards)?)?;
    let with_offsets = made.clone().with(names::OFFSETS, Scope::BATCH, seen.get(names::OFFSETS)?.to_vec());
    let expected = sequences::select(&with_offsets, &backwards)?;
    let mut worst = Agreement::new(0.0, 1e-10);
    for array in made.arrays() {
        let what = format!("sequences reversed: prepared `{}`", array.name);
        worst = worst.worse(numbers(&what, expected.get(&array.name)?, found.get(&array.name)?, Alike::Rounding)?);
    }
    Ok(worst)
}

/// The sequences from `compose` are valid, come from the given rows, and are the same for the same seed.
pub(in crate::objective) fn compose(case: &Case<'_>) -> Outcome {
    let mut notes = BTreeSet::new();
    for draw in case.windows() {
        let rows = case.generator().rows(case.manifest(), draw);
        let objective = case.instance()?;
        let before = objective.state()?;
        let Some(composed) = objective.compose(&rows, draw)? else {
            return holds();
        };
        valid(case, &rows, &composed).map_err(|fault| fault.shown_by(&rows))?;
        let (again, other) = (objective.compose(&rows, draw)?, case.instance()?.compose(&rows, draw)?);
        for (what, again) in [("a second call", again), ("another instance", other)] {
            if !again.is_some_and(|again| same_bits(&again, &composed)) {
                return fault(format!("{what} with the same seed composes other sequences"));
            }
        }
        if objective.state()? != before {
            return fault("`compose` changed the state");
        }
        notes.insert(order(case, &rows, &composed, objective.as_ref(), draw)?);
    }
    Ok(Held::note(notes.into_iter().collect::<Vec<_>>().join("; ")))
}

fn valid(case: &Case<'_>, rows: &Batch<'_>, composed: &Batch<'_>) -> Result<(), Fault> {
    let longest = rows.get(names::LONGEST)?.first().map_or(usize::MAX, |longest| *longest as usize);
    // Reserved ids are in the vocabulary, and in no text.
    let reserved = case.requirements.reserved_ids.iter().map(|reserved| reserved.number.saturating_add(1));
    let vocab = reserved.fold(case.generator().vocabulary() as u64, u64::max);
    let limits = Limits { vocab, longest, candidates: case.requirements.composed_candidates() };
    contract::composed(rows, composed, limits).map_err(|why| {
        let beyond = composed.get("token").is_ok_and(|tokens| tokens.iter().any(|id| *id >= limits.vocab as f64));
        let remedy =
            "; name ids of its own in the requirements (`reserved_ids`), or give the laws the vocabulary that has them \
             (`--vocabulary`, `with_vocabulary`)";
        Fault::from(format!("`compose`: {}{}", why.text, if beyond { remedy } else { "" }))
    })?;
    if case.manifest().data == DataKind::PREFERENCE {
        pairs(composed)?;
    }
    Ok(())
}

/// Whether two batches have the same arrays, bit for bit: NaN, which is allowed where the mask is 0, equals itself.
fn same_bits(a: &Batch<'_>, b: &Batch<'_>) -> bool {
    let form =
        |x: &Array<'_>| (x.name.to_string(), x.scope.0, x.cols, x.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    a.arrays().iter().map(form).eq(b.arrays().iter().map(form))
}

/// Every group of a pair has one chosen and one rejected sequence.
fn pairs(composed: &Batch<'_>) -> Result<(), Fault> {
    let (group, side) = (composed.get(names::GROUP)?, composed.get(names::SIDE)?);
    let mut sides: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    group.iter().zip(side).for_each(|(group, side)| sides.entry(group.to_bits()).or_default().push(*side));
    for (group, mut found) in sides {
        found.sort_by(f64::total_cmp);
        if found != [0.0, 1.0] {
            let group = f64::from_bits(group);
            return fault(format!(
                "pair {group} has the sides {found:?}, expected one of 1 (chosen) and one of 0 (rejected)"
            ));
        }
    }
    Ok(())
}

/// In words: how many rows are kept, and whether the result depends on seed or order.
fn order(
    case: &Case<'_>,
    rows: &Batch<'_>,
    composed: &Batch<'_>,
    objective: &dyn Objective,
    seed: u64,
) -> Result<String, Fault> {
    let distinct = |batch: &Batch<'_>| -> Result<usize, Fault> {
        Ok(batch.get("row")?.iter().map(|r| r.to_bits()).collect::<BTreeSet<_>>().len())
    };
    let kept = format!("{} of {} rows kept", distinct(composed)?, distinct(rows)?);
    for other in 1..4 {
        if !objective.compose(rows, seed ^ (other << 32 | other))?.is_some_and(|other| same_bits(&other, composed)) {
            return Ok(format!("{kept}, drawn by the seed"));
        }
    }
    let backwards: Vec<usize> = sequences::rows_reversed(rows)?;
    let reversed = sequences::select(rows, &backwards)?;
    let found = objective.compose(&reversed, seed)?;
    let found =
        found.ok_or_else(|| Fault::from("`compose` leaves reversed rows to the host, but not these".to_owned()))?;
    valid(case, &reversed, &found)?;
    // Some objectives mix rows on purpose: KTO puts another row's answer next to each prompt.
    let same = sequences_sorted(&found)? == sequences_sorted(composed)?;
    Ok(if same { kept } else { format!("{kept}, mixed by their order") })
}

/// Each sequence's row, tokens and mask, sorted.
fn sequences_sorted(batch: &Batch<'_>) -> Result<Vec<Vec<u64>>, Fault> {
    let (row, token, mask) = (batch.get("row")?, batch.get("token")?, batch.mask()?);
    let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let one =
        |(s, w): (usize, &[usize])| [bits(&row[s..=s]), bits(&token[w[0]..w[1]]), bits(&mask[w[0]..w[1]])].concat();
    let mut all: Vec<Vec<u64>> = batch.offsets()?.windows(2).enumerate().map(one).collect();
    all.sort();
    Ok(all)
}
