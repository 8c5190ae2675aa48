//! The sequences of a window whose chosen rows are learned with their prompts.

use plugin_api::{batch::names, prelude::*};

/// Per token: 1 in an answer, 0 in a prompt. It is returned with the sequences.
pub const ANSWER: &str = "answer";

/// A part of a row: a prompt before an answer.
const PROMPT: f64 = 1.0;
/// A part of a row: a chosen answer.
const CHOSEN: f64 = 3.0;

/// Each answer with its prompt, as they are; the prompts of chosen answers are supervised too.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing, and for parts that are not a prompt before each answer.
pub fn with_prompts(rows: &Batch<'_>) -> Result<Batch<'static>> {
    let (offsets, part) = (rows.offsets()?, rows.get("part")?);
    let (mut mask, mut answer) = (rows.mask()?.to_vec(), vec![0.0; rows.tokens()?]);
    let (mut ends, mut group, mut side) = (vec![0.0], Vec::new(), Vec::new());
    for (sequence, parts) in part.chunks(2).enumerate() {
        let [PROMPT, kind] = *parts else {
            let text = format!("`part` is {parts:?} in sequence {sequence}, expected a prompt (1) and an answer");
            return Err(Error::new(Code::ARRAY, text));
        };
        let (start, middle, end) = (offsets[2 * sequence], offsets[2 * sequence + 1], offsets[2 * sequence + 2]);
        if kind == CHOSEN {
            mask[start..middle].fill(1.0);
        }
        answer[middle..end].fill(1.0);
        ends.push(end as f64);
        // The chosen answer comes first. A row's number may occur twice in a window, a pair's may not.
        group.push((sequence / 2) as f64);
        side.push(f64::from(u8::from(kind == CHOSEN)));
    }
    let row: Vec<f64> = rows.get("row")?.iter().copied().step_by(2).collect();
    Ok(Batch::new()
        .with(names::OFFSETS, Scope::BATCH, ends)
        .with("token", Scope::TOKEN, rows.get("token")?.to_vec())
        .with(names::MASK, Scope::TOKEN, mask)
        .with("row", Scope::SEQUENCE, row)
        .with(names::GROUP, Scope::SEQUENCE, group)
        .with(names::SIDE, Scope::SEQUENCE, side)
        .with(ANSWER, Scope::TOKEN, answer))
}
