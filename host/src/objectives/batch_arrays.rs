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
