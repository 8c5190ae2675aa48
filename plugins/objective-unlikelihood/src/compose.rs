//! The negative candidates of every token.

use plugin_api::{
    batch::{Array, names},
    prelude::*,
};
use std::collections::BTreeSet;

/// Per token and column: 1 for a candidate, 0 for a filled column. It is returned with the sequences.
pub const NEGATIVE: &str = "negative";

/// The sequences as they are, with the candidates of each token as a target.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing.
pub fn with_candidates(rows: &Batch<'_>, columns: usize) -> Result<Batch<'static>> {
    let (offsets, token) = (rows.offsets()?, rows.get("token")?);
    let (mut ids, mut negative) = (Vec::new(), Vec::new());
    for bounds in offsets.windows(2) {
        // The distinct tokens of the sequence so far, in the order of their last occurrence.
        let mut seen: Vec<f64> = Vec::new();
        for target in &token[bounds[0]..bounds[1]] {
            let candidates: Vec<f64> = seen.iter().rev().copied().filter(|id| id != target).take(columns).collect();
            negative.extend((0..columns).map(|column| f64::from(u8::from(column < candidates.len()))));
            ids.extend(filled(candidates, columns));
            seen.retain(|id| id != target);
            seen.push(*target);
        }
    }
    let wide = |name: &'static str, data: Vec<f64>| Array {
        name: name.into(),
        scope: Scope::TOKEN,
        differentiable: false,
        cols: columns,
        data: data.into(),
    };
    Ok(Batch::new()
        .with(names::OFFSETS, Scope::BATCH, rows.get(names::OFFSETS)?.to_vec())
        .with("token", Scope::TOKEN, token.to_vec())
        .with(names::MASK, Scope::TOKEN, rows.mask()?.to_vec())
        .with("row", Scope::SEQUENCE, rows.get("row")?.to_vec())
        .with_array(wide(names::CANDIDATE_IDS, ids))
        .with_array(wide(NEGATIVE, negative)))
}

/// `columns` distinct ids: the candidates, then the smallest others. Ids of one token must differ, also those that do
/// not count.
fn filled(candidates: Vec<f64>, columns: usize) -> Vec<f64> {
    let taken: BTreeSet<u64> = candidates.iter().map(|id| id.to_bits()).collect();
    let others = (0u32..).map(f64::from).filter(|id| !taken.contains(&id.to_bits()));
    let missing: Vec<f64> = others.take(columns - candidates.len()).collect();
    [candidates, missing].concat()
}
