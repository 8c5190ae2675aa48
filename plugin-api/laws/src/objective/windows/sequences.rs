//! Changes to batches: selecting sequences, replacing values behind a mask, adding the arrays from `prepare`.

use plugin_api::{
    Error, Result,
    batch::{Array, Batch, Scope, names},
    error::Code,
    objective::Objective,
};
use telos_random::SplitMix64;

/// The same batch with owned numbers.
pub(in crate::objective) fn owned(batch: &Batch<'_>) -> Batch<'static> {
    batch.arrays().iter().fold(Batch::new(), |all, a| all.with_array(with_data(a, a.data.to_vec())))
}

/// The same array with other numbers.
pub(in crate::objective) fn with_data(array: &Array<'_>, data: Vec<f64>) -> Array<'static> {
    Array {
        name: array.name.to_string().into(),
        scope: array.scope,
        differentiable: array.differentiable,
        cols: array.cols,
        data: data.into(),
    }
}

/// The sequences with these numbers, in this order.
pub(in crate::objective) fn select(batch: &Batch<'_>, sequences: &[usize]) -> Result<Batch<'static>> {
    let offsets = batch.offsets()?;
    let bounds = |s: usize| (offsets[s], offsets[s + 1]);
    let mut all = Batch::new();
    for array in batch.arrays() {
        let rows = |(from, to): (usize, usize)| &array.data[from * array.cols..to * array.cols];
        let data = match (array.name.as_ref(), array.scope) {
            (names::OFFSETS, _) => {
                let lengths = sequences.iter().map(|s| bounds(*s).1 - bounds(*s).0);
                let ends = lengths.scan(0, |end, length| {
                    *end += length;
                    Some(*end as f64)
                });
                std::iter::once(0.0).chain(ends).collect()
            }
            (_, Scope::TOKEN) => sequences.iter().flat_map(|s| rows(bounds(*s)).to_vec()).collect(),
            (_, Scope::SEQUENCE) => sequences.iter().flat_map(|s| rows((*s, *s + 1)).to_vec()).collect(),
            (name, Scope::LIST) => {
                let lengths = batch.lengths(name)?;
                let begin = |s: usize| lengths[..s].iter().sum::<usize>();
                sequences.iter().flat_map(|s| rows((begin(*s), begin(*s + 1))).to_vec()).collect()
            }
            _ => array.data.to_vec(),
        };
        all = all.with_array(with_data(array, data));
    }
    Ok(all)
}

/// The sequences of `first` and then those of `second`.
///
/// # Errors
/// An array that only `first` has.
pub(in crate::objective) fn append(first: &Batch<'_>, second: &Batch<'_>) -> Result<Batch<'static>> {
    let (mut all, tokens) = (Batch::new(), first.tokens()? as f64);
    for array in first.arrays() {
        let more = second.array(&array.name)?.data.iter().copied();
        let data = match (array.name.as_ref(), array.scope) {
            (names::OFFSETS, _) => array.data.iter().copied().chain(more.skip(1).map(|start| start + tokens)).collect(),
            (_, Scope::BATCH) => array.data.to_vec(),
            _ => array.data.iter().copied().chain(more).collect(),
        };
        all = all.with_array(with_data(array, data));
    }
    Ok(all)
}

/// Sequences that stay in one micro-batch when the host splits windows: those of one `group`, or each alone if there is no
/// `group`.
///
/// # Errors
/// A batch without offsets.
pub(in crate::objective) fn units(batch: &Batch<'_>) -> Result<Vec<Vec<usize>>> {
    let group = batch.find(names::GROUP).map(|a| a.data.to_vec());
    let mut units: Vec<(Option<u64>, Vec<usize>)> = Vec::new();
    for s in 0..batch.sequences()? {
        let name = group.as_ref().map(|g| g[s].to_bits());
        match units.iter_mut().find(|(other, _)| name.is_some() && *other == name) {
            Some((_, members)) => members.push(s),
            None => units.push((name, vec![s])),
        }
    }
    Ok(units.into_iter().map(|(_, members)| members).collect())
}

/// `batch` with `value` in those elements of its statistics where the mask is 0.
pub(in crate::objective) fn poison(
    batch: &Batch<'_>,
    statistics: &[String],
    mut value: impl FnMut(&mut SplitMix64) -> f64,
) -> Result<Batch<'static>> {
    let mut rng = SplitMix64::new(0xbad);
    let mask = batch.mask()?.to_vec();
    let mut all = owned(batch);
    for array in batch.arrays() {
        if array.scope != Scope::TOKEN || !statistics.iter().any(|s| *s == array.name) {
            continue;
        }
        let hidden = |i: usize| mask[i / array.cols] == 0.0;
        let one = |(i, x): (usize, &f64)| if hidden(i) { value(&mut rng) } else { *x };
        let data = array.data.iter().enumerate().map(one).collect();
        all = all.with_array(with_data(array, data));
    }
    Ok(all)
}

/// Whether each sequence counts in normalisers: `counted`, and 1 where the objective does not compose it.
pub(in crate::objective) fn counted(batch: &Batch<'_>) -> Result<Vec<f64>> {
    let sequences = batch.sequences()?;
    Ok(batch.find(names::COUNTED).map_or_else(|| vec![1.0; sequences], |counted| counted.data.to_vec()))
}

/// The number of supervised tokens of the sequences that count.
pub(in crate::objective) fn counted_tokens(batch: &Batch<'_>, counted: &[f64]) -> Result<f64> {
    let (mask, offsets) = (batch.mask()?, batch.offsets()?);
    let tokens = offsets.windows(2).zip(counted).filter(|(_, counts)| **counts != 0.0);
    Ok(tokens.map(|(ends, _)| mask[ends[0]..ends[1]].iter().sum::<f64>()).sum())
}

/// `batch` in the first step of its run.
pub(in crate::objective) fn at_first_step(batch: &Batch<'_>) -> Batch<'static> {
    owned(batch).with(names::STEP, Scope::BATCH, vec![1.0])
}

/// `batch` without supervised tokens.
pub(in crate::objective) fn unsupervised(batch: &Batch<'_>) -> Result<Batch<'static>> {
    let tokens = batch.tokens()?;
    Ok(owned(batch).with(names::MASK, Scope::TOKEN, vec![0.0; tokens]))
}

/// The last tokens of each sequence, as many as `lengths` says.
pub(in crate::objective) fn last_tokens(batch: &Batch<'_>, lengths: &[usize]) -> Result<Batch<'static>> {
    let offsets = batch.offsets()?;
    let kept = |s: usize| offsets[s + 1] - lengths[s].min(offsets[s + 1] - offsets[s])..offsets[s + 1];
    let mut all = Batch::new();
    for array in batch.arrays() {
        let data = match (array.name.as_ref(), array.scope) {
            (names::OFFSETS, _) => std::iter::once(0.0)
                .chain((0..lengths.len()).scan(0, |end, s| {
                    *end += kept(s).len();
                    Some(*end as f64)
                }))
                .collect(),
            (names::POSITION, _) => (0..lengths.len()).flat_map(|s| (0..kept(s).len()).map(|p| p as f64)).collect(),
            (_, Scope::TOKEN) => (0..lengths.len())
                .flat_map(|s| array.data[kept(s).start * array.cols..kept(s).end * array.cols].to_vec())
                .collect(),
            _ => array.data.to_vec(),
        };
        all = all.with_array(with_data(array, data));
    }
    Ok(all)
}

/// `window` with the results of `prepare`: its arrays added and, with rollouts, samples dropped for which `keep` is 0.
pub(in crate::objective) fn prepared(
    objective: &mut dyn Objective,
    seen: &Batch<'_>,
    window: &Batch<'_>,
    rollouts: bool,
) -> Result<Batch<'static>> {
    let made = objective.prepare(seen)?;
    // What is requested is for the host alone.
    let own = made.arrays().iter().filter(|array| array.name != names::REQUEST);
    let batch = own.fold(owned(window), |all, a| all.with_array(with_data(a, a.data.to_vec())));
    batch.check()?;
    let Some(keep) = batch.find("keep").filter(|_| rollouts).map(|a| a.data.to_vec()) else {
        return Ok(batch);
    };
    let kept: Vec<usize> = (0..keep.len()).filter(|s| keep[*s] != 0.0).collect();
    select(&batch, &kept)
}

/// A window of the sequences from `compose`, as the host makes it: a position for every token but the first of a sequence, with
/// that token as its target, and with the numbers that the objective gave that token.
///
/// # Errors
/// An array of a wrong scope or length; the law `compose` reports details.
pub(in crate::objective) fn window_of(composed: &Batch<'_>) -> Result<Batch<'static>> {
    composed.check()?;
    for name in ["token", names::MASK] {
        let array = composed.array(name)?;
        if array.scope != Scope::TOKEN || array.cols != 1 {
            let (found, cols) = (array.scope, array.cols);
            let text = format!("`compose` returned `{name}` per {found:?} with {cols} columns, expected one per token");
            return Err(Error::new(Code::ARRAY, text));
        }
    }
    let (offsets, token, mask) = (composed.offsets()?, composed.get("token")?, composed.mask()?);
    let lengths: Vec<usize> = offsets.windows(2).map(|w| (w[1] - w[0]).saturating_sub(1)).collect();
    let rows_of = |values: &[f64], cols: usize| -> Vec<f64> {
        offsets.windows(2).flat_map(|w| values[(w[0] + 1).min(w[1]) * cols..w[1] * cols].to_vec()).collect()
    };
    let predicted = |values: &[f64]| rows_of(values, 1);
    let ends = lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end as f64)
    });
    let window = Batch::new()
        .with(names::OFFSETS, Scope::BATCH, std::iter::once(0.0).chain(ends).collect::<Vec<_>>())
        .with(names::TARGET, Scope::TOKEN, predicted(token))
        .with(names::MASK, Scope::TOKEN, predicted(mask))
        .with(
            names::POSITION,
            Scope::TOKEN,
            lengths.iter().flat_map(|length| (0..*length).map(|p| p as f64)).collect::<Vec<_>>(),
        );
    let own = |a: &&Array<'_>| !["row", "part", "token", names::MASK, names::OFFSETS].contains(&a.name.as_ref());
    Ok(composed.arrays().iter().filter(own).fold(window, |all, a| {
        let data = if a.scope == Scope::TOKEN { rows_of(&a.data, a.cols) } else { a.data.to_vec() };
        all.with_array(with_data(a, data))
    }))
}

/// The parts of rows (as `compose` reads them), the last row first, the parts of a row in their order.
pub(in crate::objective) fn rows_reversed(rows: &Batch<'_>) -> Result<Vec<usize>> {
    let row = rows.get("row")?;
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (part, number) in row.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if group.first().is_some_and(|first| row[*first] == *number) => group.push(part),
            _ => groups.push(vec![part]),
        }
    }
    Ok(groups.into_iter().rev().flatten().collect())
}
