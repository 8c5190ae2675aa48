//! Converts packed batches to the named arrays that objectives read.

use plugin_api::batch::{Array, Batch, Scope, names};

use crate::{
    data::PackedBatch,
    error::Result,
    model::{HeadStats, Statistics},
};

/// Returns the arrays of a batch that come from the data.
pub fn data_arrays(packed: &PackedBatch) -> Batch<'static> {
    let floats = |values: &[i32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let mut batch = Batch::new()
        .with(names::OFFSETS, Scope::BATCH, floats(&packed.offsets))
        .with(names::TARGET, Scope::TOKEN, floats(&packed.targets))
        .with(names::MASK, Scope::TOKEN, packed.mask.clone())
        .with(names::POSITION, Scope::TOKEN, floats(&packed.positions));
    for (name, values) in &packed.columns {
        batch = batch.with(format!("{}{name}", names::COLUMN), Scope::SEQUENCE, values.clone());
    }
    for (name, lists) in &packed.lists {
        let (name, lengths) = (format!("{}{name}", names::COLUMN), lists.lengths.iter().map(|l| *l as f64));
        batch = batch.with(format!("{name}{}", names::LENGTH), Scope::SEQUENCE, lengths.collect::<Vec<_>>());
        batch = batch.with(name, Scope::LIST, lists.values.clone());
    }
    for (name, values) in &packed.per_sequence {
        batch = batch.with(name.clone(), Scope::SEQUENCE, values.clone());
    }
    for (name, values) in &packed.per_token {
        batch = batch.with_array(Array {
            name: name.clone().into(),
            scope: Scope::TOKEN,
            differentiable: false,
            cols: packed.widths.get(name).copied().unwrap_or(1),
            data: values.clone().into(),
        });
    }
    batch
}

/// Returns the tokens that pass the head: the supervised ones.
pub fn supervised_rows(packed: &PackedBatch) -> Vec<i32> {
    packed.mask.iter().enumerate().filter(|(_, m)| **m != 0.0).map(|(n, _)| n as i32).collect()
}

/// Places the values of the tokens `rows` among all `n` tokens; the others get 0.
pub fn spread(n: usize, rows: &[i32], values: &[f64]) -> Vec<f64> {
    let mut all = vec![0.0; n];
    for (row, value) in rows.iter().zip(values) {
        all[*row as usize] = *value;
    }
    all
}

/// As [`spread`], of `cols` values per token.
pub fn spread_wide(n: usize, rows: &[i32], cols: usize, values: &[f64]) -> Vec<f64> {
    let mut all = vec![0.0; n * cols];
    for (row, own) in rows.iter().zip(values.chunks_exact(cols.max(1))) {
        all[*row as usize * cols..][..cols].copy_from_slice(own);
    }
    all
}

/// Returns the values of the tokens `rows`, of `cols` values per token, from those of all tokens.
pub fn gathered(rows: &[i32], cols: usize, all: &[f64]) -> Vec<f64> {
    rows.iter().flat_map(|row| all.iter().skip(*row as usize * cols).take(cols).copied()).collect()
}

/// Returns a batch's data with the statistics of its supervised tokens; the others get 0.
pub fn with_statistics(
    packed: &PackedBatch,
    rows: &[i32],
    wanted: Statistics,
    stats: Option<&HeadStats>,
) -> Result<Batch<'static>> {
    let n = packed.len();
    let mut batch = data_arrays(packed);
    for name in Statistics::DIFFERENTIABLE.into_iter().filter(|name| wanted.has(name)) {
        let values = stats.and_then(|s| s.get(name)).unwrap_or_default();
        batch = batch.with_statistic(name, Scope::TOKEN, spread(n, rows, values));
    }
    if let Some(top1) = stats.and_then(|s| s.top1.as_ref()) {
        let mut hits = vec![0.0; n];
        for (row, id) in rows.iter().zip(top1) {
            hits[*row as usize] = f64::from(u8::from(packed.targets[*row as usize] == *id));
        }
        batch = batch.with(Statistics::TOP1, Scope::TOKEN, hits);
    }
    batch.check()?;
    Ok(batch)
}

/// Concatenates the arrays of the micro-batches; offsets are those of the whole window.
pub fn join_batches(parts: &[Batch<'_>], whole: &PackedBatch) -> Batch<'static> {
    let Some(first) = parts.first() else { return Batch::new() };
    first.arrays().iter().fold(Batch::new(), |batch, array| {
        let mut joined = Array {
            name: array.name.to_string().into(),
            scope: array.scope,
            differentiable: array.differentiable,
            cols: array.cols,
            data: Vec::new().into(),
        };
        joined.data = if array.name == names::OFFSETS {
            whole.offsets.iter().map(|o| f64::from(*o)).collect::<Vec<_>>().into()
        } else {
            let same = parts.iter().filter_map(|p| p.find(&array.name));
            same.flat_map(|a| a.data.iter().copied()).collect::<Vec<_>>().into()
        };
        debug_assert!(array.scope != Scope::BATCH || array.name == names::OFFSETS);
        batch.with_array(joined)
    })
}

/// Returns the sequences of `first` and then those of `second`.
///
/// # Errors
/// An array that only `first` has.
pub fn append(first: &Batch<'_>, second: &Batch<'_>) -> Result<Batch<'static>> {
    let (mut all, tokens) = (Batch::new(), first.tokens()? as f64);
    for array in first.arrays() {
        let more = second.array(&array.name)?;
        let both = |more: Vec<f64>| array.data.iter().copied().chain(more).collect::<Vec<f64>>();
        let data = match array.scope {
            _ if array.name == names::OFFSETS => both(more.data.iter().skip(1).map(|start| start + tokens).collect()),
            // One value for the whole rollout.
            Scope::BATCH => array.data.to_vec(),
            _ => both(more.data.to_vec()),
        };
        all = all.with_array(Array { name: array.name.to_string().into(), data: data.into(), ..*array });
    }
    Ok(all)
}

/// Returns the sequences for which `keep` is true.
///
/// # Errors
/// A batch without offsets, or a list without its lengths.
pub fn select(batch: &Batch<'_>, keep: &[bool]) -> Result<Batch<'static>> {
    let offsets = batch.offsets()?;
    let tokens: Vec<usize> = offsets.windows(2).map(|ends| ends[1] - ends[0]).collect();
    let mut all = Batch::new();
    for array in batch.arrays() {
        let kept = |lengths: &[usize]| {
            let mut rest = array.data.as_ref();
            let mut data = Vec::new();
            for (length, keep) in lengths.iter().zip(keep) {
                let (own, after) = rest.split_at((length * array.cols).min(rest.len()));
                rest = after;
                if *keep {
                    data.extend_from_slice(own);
                }
            }
            data
        };
        let data = match array.scope {
            _ if array.name == names::OFFSETS => {
                let lengths = tokens.iter().zip(keep).filter(|(_, keep)| **keep).map(|(length, _)| *length as f64);
                let ends = lengths.scan(0.0, |end, length| {
                    *end += length;
                    Some(*end)
                });
                std::iter::once(0.0).chain(ends).collect()
            }
            Scope::TOKEN => kept(&tokens),
            Scope::SEQUENCE => kept(&vec![1; tokens.len()]),
            Scope::LIST => kept(&batch.lengths(&array.name)?),
            _ => array.data.to_vec(),
        };
        all = all.with_array(Array { name: array.name.to_string().into(), data: data.into(), ..*array });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches tokens or list entries that stay with a dropped answer, and offsets that are not those of the new batch.
    #[test]
    fn answers_are_dropped_and_appended_with_all_their_numbers() {
        let batch = |first: f64| {
            Batch::new()
                .with(names::OFFSETS, Scope::BATCH, vec![0.0, 2.0, 3.0, 5.0])
                .with("logp", Scope::TOKEN, (0..5).map(|n| first + f64::from(n)).collect::<Vec<f64>>())
                .with("reward", Scope::SEQUENCE, vec![first, first + 10.0, first + 20.0])
                .with("step", Scope::BATCH, vec![7.0])
                .with("labels", Scope::LIST, vec![first, first + 1.0, first + 2.0])
                .with("labels.length", Scope::SEQUENCE, vec![1.0, 0.0, 2.0])
        };
        let kept = select(&batch(100.0), &[false, true, true]).unwrap();
        let both = append(&kept, &batch(0.0)).unwrap();
        both.check().unwrap();
        assert_eq!(both.get(names::OFFSETS).unwrap(), [0.0, 1.0, 3.0, 5.0, 6.0, 8.0]);
        assert_eq!(both.get("logp").unwrap(), [102.0, 103.0, 104.0, 0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(both.get("reward").unwrap(), [110.0, 120.0, 0.0, 10.0, 20.0]);
        assert_eq!(both.get("labels").unwrap(), [101.0, 102.0, 0.0, 1.0, 2.0]);
        assert_eq!(both.get("step").unwrap(), [7.0]);
        assert!(append(&both, &Batch::new().with(names::OFFSETS, Scope::BATCH, vec![0.0])).is_err());
    }
}
