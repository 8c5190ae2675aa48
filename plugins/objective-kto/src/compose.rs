//! The sequences of a window: each row as it is, then each prompt with the answer of the next row.

use plugin_api::{batch::names, prelude::*};

/// Per sequence: 1 for a prompt with another row's answer, else 0. It is returned with the sequences.
pub const MISMATCHED: &str = "mismatched";

/// The column of labelled rows.
const LABEL: &str = "label";

/// The rows, then their mismatched sequences; a single row has none. A mismatched sequence that would be too long for the model loses
/// the beginning of its prompt, and then the end of its answer.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing.
pub fn with_mismatched(rows: &Batch<'_>) -> Result<Batch<'static>> {
    let (offsets, token, mask) = (rows.offsets()?, rows.get("token")?, rows.mask()?);
    let (row, label) = (rows.get("row")?, rows.column(LABEL)?);
    let longest = rows.get(names::LONGEST)?.first().map_or(usize::MAX, |longest| *longest as usize);
    // Two parts per row: the prompt, then the answer.
    let count = rows.sequences()? / 2;
    let mut made = Sequences { offsets: vec![0.0], ..Sequences::default() };
    for mismatched in [false, true].into_iter().take(if count > 1 { 2 } else { 1 }) {
        for index in 0..count {
            let answer = (index + usize::from(mismatched)) % count;
            let [mut prompt, mut written] = [2 * index, 2 * answer + 1].map(|part| offsets[part]..offsets[part + 1]);
            // One token of the prompt stays, so that every token of the answer is predicted.
            let over = (prompt.len() + written.len()).saturating_sub(longest);
            prompt.start += over.min(prompt.len().saturating_sub(1));
            written.end -= (prompt.len() + written.len()).saturating_sub(longest).min(written.len());
            for part in [prompt, written] {
                made.token.extend(&token[part.clone()]);
                made.mask.extend(&mask[part]);
            }
            made.offsets.push(made.token.len() as f64);
            made.row.push(row[2 * index]);
            made.side.push(label[2 * index]);
            made.mismatched.push(f64::from(u8::from(mismatched)));
        }
    }
    Ok(made.batch())
}

/// Arrays while they are filled.
#[derive(Default)]
struct Sequences {
    offsets: Vec<f64>,
    token: Vec<f64>,
    mask: Vec<f64>,
    row: Vec<f64>,
    side: Vec<f64>,
    mismatched: Vec<f64>,
}

impl Sequences {
    fn batch(self) -> Batch<'static> {
        let counted: Vec<f64> = self.mismatched.iter().map(|mismatched| 1.0 - mismatched).collect();
        Batch::new()
            .with(names::OFFSETS, Scope::BATCH, self.offsets)
            .with("token", Scope::TOKEN, self.token)
            .with(names::MASK, Scope::TOKEN, self.mask)
            .with("row", Scope::SEQUENCE, self.row)
            .with(names::SIDE, Scope::SEQUENCE, self.side)
            .with(names::COUNTED, Scope::SEQUENCE, counted)
            .with(MISMATCHED, Scope::SEQUENCE, self.mismatched)
    }
}
