//! The laws of `prepare` and `compose`: what an objective adds to a window, and what it makes of rows.

use super::{
    Case, Fault, Held, Outcome, Values,
    compare::{Alike, numbers},
    fault, holds, sequences,
};
use crate::{
    batch::{Array, Batch, Scope, names},
    laws::Agreement,
    manifest::DataKind,
    objective::Objective,
};
use std::collections::{BTreeMap, BTreeSet};

/// Arrays that the host writes, whatever the data: `prepare` may return none of these.
const HOSTS: &[&str] = &[
    names::OFFSETS,
    names::TARGET,
    names::MASK,
    names::POSITION,
    names::GROUP,
    names::SIDE,
    names::REWARD,
    names::ENDED,
    names::REFERENCE_LOGP,
    names::CRITIC_VALUE,
    names::CRITIC_VALUE_END,
    "logp",
    "lse",
    "entropy",
    "mean_logit",
    "top1",
    "row",
    "token",
];

/// What `prepare` answers fits the window, is the objective's own, and follows its sequences.
pub(super) fn prepare(case: &Case<'_>) -> Outcome {
    let mut worst = Agreement::new(0.0, 1e-10);
    let mut count = 0;
    for draw in case.windows() {
        let window = case.fill(&case.data(draw), Values::Random(draw))?;
        let seen = case.seen_by_prepare(&window);
        let made = case.instance()?.prepare(&seen)?;
        count = made.arrays().len();
        form(case, &seen, &made)?;
        repeats(case, &seen, &made)?;
        worst = worst.worse(follows(case, &seen, &made)?);
    }
    let note = if count == 0 { String::new() } else { format!("{count} arrays") };
    Ok(Held { note, agreement: (count > 0).then_some(worst) })
}

fn form(case: &Case<'_>, seen: &Batch<'_>, made: &Batch<'_>) -> Result<(), Fault> {
    let (tokens, sequences) = (seen.tokens()?, seen.sequences()?);
    let mask = seen.mask()?;
    for array in made.arrays() {
        let name = array.name.as_ref();
        let what = format!("`prepare` answers `{name}`");
        if name == "request" {
            return fault(format!("{what}, which no host follows: rollouts are drawn as the experiment says"));
        }
        if name == "keep" {
            keep(case, array, sequences)?;
            continue;
        }
        if HOSTS.contains(&name) || name.starts_with(names::COLUMN) || name.starts_with("telos.") {
            return fault(format!("{what}, a name of the host's: the data would be changed; choose another"));
        }
        if case.requirements.statistics.iter().any(|s| s == name) || seen.find(name).is_some() {
            return fault(format!("{what}, which the window has already; choose another name"));
        }
        let rows = match array.scope {
            Scope::TOKEN => tokens,
            Scope::SEQUENCE => sequences,
            _ if case.rollouts() => {
                return fault(format!(
                    "{what} per rollout; only what belongs to tokens or sequences can be cut into steps"
                ));
            }
            Scope::BATCH => continue,
            Scope(other) => return fault(format!("{what} with scope {other}, which means nothing")),
        };
        if case.rollouts() && array.cols != 1 {
            return fault(format!("{what} with {} columns, where rollouts take one", array.cols));
        }
        if array.data.len() != rows * array.cols {
            let (found, scope) = (array.data.len(), array.scope);
            return fault(format!("{what} with {found} values, expected {rows} {scope:?} rows of {}", array.cols));
        }
        let counts = |i: usize| array.scope != Scope::TOKEN || mask.get(i / array.cols.max(1)) == Some(&1.0);
        if let Some(i) = (0..array.data.len()).find(|i| counts(*i) && !array.data[*i].is_finite()) {
            return fault(format!("{what}: value {i} is {}", array.data[i]));
        }
    }
    Ok(())
}

fn keep(case: &Case<'_>, keep: &Array<'_>, sequences: usize) -> Result<(), Fault> {
    if !case.rollouts() {
        return fault("`prepare` answers `keep`, but only answers of a rollout can be dropped: rows are the data's");
    }
    if keep.scope != Scope::SEQUENCE || keep.data.len() != sequences {
        let (n, scope) = (keep.data.len(), keep.scope);
        return fault(format!(
            "`keep` has {n} values of scope {scope:?}, expected one for each of {sequences} sequences"
        ));
    }
    match keep.data.iter().position(|k| *k != 0.0 && *k != 1.0) {
        Some(at) => fault(format!("`keep`[{at}] is {}: 1 keeps an answer, 0 drops it", keep.data[at])),
        None => Ok(()),
    }
}

/// Another instance answers the same bits.
fn repeats(case: &Case<'_>, seen: &Batch<'_>, made: &Batch<'_>) -> Result<(), Fault> {
    let again = case.instance()?.prepare(seen)?;
    for array in made.arrays() {
        let what = format!("another instance: prepared `{}`", array.name);
        numbers(&what, &array.data, again.get(&array.name)?, Alike::Exactly)?;
    }
    Ok(())
}

/// The order of groups and rows is chance: what is prepared of a sequence goes with it.
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

/// What `compose` makes of rows is valid, comes from them, and is the same for the same seed.
pub(super) fn compose(case: &Case<'_>) -> Outcome {
    let mut notes = BTreeSet::new();
    for draw in case.windows() {
        let rows = case.generator().rows(case.manifest(), draw);
        let objective = case.instance()?;
        let before = objective.state()?;
        let Some(composed) = objective.compose(&rows, draw)? else {
            return holds();
        };
        valid(case, &rows, &composed)?;
        let (again, other) = (objective.compose(&rows, draw)?, case.instance()?.compose(&rows, draw)?);
        for (what, again) in [("a second call", again), ("another instance", other)] {
            if again.as_ref() != Some(&composed) {
                return fault(format!("{what} with the same seed composes other sequences"));
            }
        }
        if objective.state()? != before {
            return fault("`compose` changed the state");
        }
        notes.insert(order(&rows, &composed, objective.as_ref(), draw)?);
    }
    Ok(Held::note(notes.into_iter().collect::<Vec<_>>().join("; ")))
}

fn valid(case: &Case<'_>, rows: &Batch<'_>, composed: &Batch<'_>) -> Result<(), Fault> {
    let named = |e: crate::Error| Fault::from(format!("`compose`: {}", e.message));
    let offsets = composed.get(names::OFFSETS).map_err(named)?;
    if let Some(at) = offsets.iter().position(|o| o.fract() != 0.0 || !o.is_finite() || *o < 0.0) {
        return fault(format!("`offsets`[{at}] is {}, expected a whole number", offsets[at]));
    }
    composed.offsets().map_err(named)?;
    for (name, scope) in [("token", Scope::TOKEN), (names::MASK, Scope::TOKEN), ("row", Scope::SEQUENCE)] {
        let array = composed.array(name).map_err(named)?;
        if array.scope != scope || array.cols != 1 {
            return fault(format!(
                "`{name}` is per {:?} in {} columns, expected one per {scope:?}",
                array.scope, array.cols
            ));
        }
    }
    composed.check().map_err(named)?;
    let not = |name: &str, fits: &dyn Fn(f64) -> bool| -> Result<Option<(usize, f64)>, Fault> {
        let values = composed.get(name)?;
        Ok(values.iter().position(|x| !fits(*x)).map(|at| (at, values[at])))
    };
    if let Some((at, x)) = not("token", &|x| x.fract() == 0.0 && (0.0..=f64::from(i32::MAX)).contains(&x))? {
        return fault(format!("`token`[{at}] is {x}, which is not a token id"));
    }
    if let Some((at, x)) = not(names::MASK, &|x| x == 0.0 || x == 1.0)? {
        return fault(format!("`mask`[{at}] is {x}, expected 0 or 1"));
    }
    let given: BTreeSet<u64> = rows.get("row")?.iter().map(|r| r.to_bits()).collect();
    if let Some((at, x)) = not("row", &|x| given.contains(&x.to_bits()))? {
        return fault(format!(
            "`row`[{at}] is {x}, which is not a row that was given: rows are counted and split by it"
        ));
    }
    if composed.get(names::MASK)?.iter().all(|m| *m == 0.0) {
        return fault("nothing of what `compose` answers is supervised");
    }
    if case.manifest().data == DataKind::PREFERENCE {
        pairs(composed)?;
    }
    Ok(())
}

/// Of pairs every group has one chosen and one rejected sequence.
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

/// In words: how many rows are kept, and whether seed or order decide what becomes of them.
fn order(rows: &Batch<'_>, composed: &Batch<'_>, objective: &dyn Objective, seed: u64) -> Result<String, Fault> {
    let distinct = |batch: &Batch<'_>| -> Result<usize, Fault> {
        Ok(batch.get("row")?.iter().map(|r| r.to_bits()).collect::<BTreeSet<_>>().len())
    };
    let kept = format!("{} of {} rows kept", distinct(composed)?, distinct(rows)?);
    for other in 1..4 {
        if objective.compose(rows, seed ^ (other << 32 | other))?.as_ref() != Some(composed) {
            return Ok(format!("{kept}, drawn by the seed"));
        }
    }
    let backwards: Vec<usize> = sequences::rows_reversed(rows)?;
    let found = objective.compose(&sequences::select(rows, &backwards)?, seed)?;
    let found =
        found.ok_or_else(|| Fault::from("`compose` leaves reversed rows to the host, but not these".to_owned()))?;
    // Some objectives mix rows on purpose: KTO lays another row's answer beside each prompt.
    let same = sequences_sorted(&found)? == sequences_sorted(composed)?;
    Ok(if same { kept } else { format!("{kept}, mixed by their order") })
}

/// Each sequence's row, tokens and mask, in an order of their own.
fn sequences_sorted(batch: &Batch<'_>) -> Result<Vec<Vec<u64>>, Fault> {
    let (row, token, mask) = (batch.get("row")?, batch.get("token")?, batch.mask()?);
    let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let one =
        |(s, w): (usize, &[usize])| [bits(&row[s..=s]), bits(&token[w[0]..w[1]]), bits(&mask[w[0]..w[1]])].concat();
    let mut all: Vec<Vec<u64>> = batch.offsets()?.windows(2).enumerate().map(one).collect();
    all.sort();
    Ok(all)
}
