//! Which tokens of a row are supervised, and how it begins and ends.

use serde_json::Value;

use crate::data::error::{DataError, Result};
use crate::data::rows::kind::Part;
use crate::data::rows::row::Row;
use crate::data::rows::set::Tokens;
use crate::data::rows::write::laid::Laid;
use crate::data::tokenizer::encode::Placed;

/// Supervises both answers of a pair from the same token on, so that the tokens before it are the same on both
/// sides.
pub fn share_the_prompt(chosen: &mut Tokens, rejected: &mut Tokens) {
    let same = chosen.ids.iter().zip(&rejected.ids).take_while(|(a, b)| a == b).count();
    let prompt = same.min(chosen.prompt()).min(rejected.prompt());
    for tokens in [chosen, rejected] {
        let answer = tokens.prompt();
        tokens.supervised[prompt..answer].fill(true);
    }
}

/// Whether a column `chosen_ended` (or of another answer) is false or 0: the answer was cut off, so its end is not
/// learned.
///
/// # Errors
/// Any value other than true, false, 1, 0 and null.
pub fn is_cut_off(row: &Row, answer: Part) -> Result<bool> {
    let key = format!("{}_ended", answer.name());
    match row.columns.get(&key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(ended)) => Ok(!ended),
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(true),
        Some(Value::Number(number)) if number.as_f64() == Some(1.0) => Ok(false),
        Some(other) => {
            let what = format!("expected true (the answer ended by itself) or false (it was cut off), found {other}");
            Err(DataError::Json { place: row.place.clone(), key, what })
        }
    }
}

/// Decides which tokens of a row are supervised. `close` is added after an answer without a token that ends it,
/// unless the template's marks decide exactly what is learned.
pub fn supervise(
    laid: &Laid,
    placed: &Placed,
    segment_ends: Vec<bool>,
    close: Option<u32>,
    is_end: impl Fn(u32) -> bool,
) -> Tokens {
    let mut tokens = Tokens { ids: placed.ids.clone(), supervised: vec![false; placed.ids.len()], segment_ends };
    let mut end = None;
    for span in &laid.supervised {
        let inside = |(a, b): (usize, usize)| a < span.end && b.max(a + 1) > span.start;
        let mut own: Vec<usize> = (0..tokens.ids.len()).filter(|i| inside(placed.offsets[*i])).collect();
        let after = own.last().map_or_else(|| first_at(placed, span.end), |last| last + 1);
        match own.iter().position(|i| is_end(tokens.ids[*i])) {
            _ if laid.is_exact => {}
            // Generation stops there, so the text after it would never be generated.
            Some(stop) => own.truncate(stop + 1),
            // Some templates mark the words without the token that ends them.
            None if tokens.ids.get(after).is_some_and(|id| is_end(*id)) => own.push(after),
            None => {}
        }
        own.iter().for_each(|i| tokens.supervised[*i] = true);
        end = Some(own.last().map_or(after, |last| last + 1));
    }
    if let Some(end) = end {
        let ends_itself = end > 0 && is_end(tokens.ids[end - 1]) && tokens.supervised[end - 1];
        if !laid.keeps_ending {
            tokens.truncate(end);
        }
        if let Some(close) = close.filter(|_| !ends_itself && !laid.is_exact) {
            tokens.ids.push(close);
            tokens.supervised.push(true);
            tokens.segment_ends.extend((!tokens.segment_ends.is_empty()).then_some(false));
        }
    }
    tokens
}

/// Puts `prefix` first, unless the text already begins with that token.
pub fn begun_with(prefix: Option<u32>, mut tokens: Tokens) -> Tokens {
    if let Some(prefix) = prefix.filter(|prefix| tokens.ids.first() != Some(prefix)) {
        tokens.ids.insert(0, prefix);
        tokens.supervised.insert(0, false);
        if !tokens.segment_ends.is_empty() {
            tokens.segment_ends.insert(0, false);
        }
    }
    tokens
}

/// The first token that begins at character `place` or after it.
fn first_at(placed: &Placed, place: usize) -> usize {
    placed.offsets.iter().position(|(start, _)| *start >= place).unwrap_or(placed.offsets.len())
}

/// Whether a token holds the end of the prompt and the beginning of the answer.
pub fn shares_a_token(laid: &Laid, placed: &Placed) -> bool {
    laid.supervised.iter().any(|span| placed.offsets.iter().any(|(a, b)| *a < span.start && span.start < *b))
}

/// Whether prompt and answer meet without white space.
pub fn joined_without_space(laid: &Laid) -> bool {
    let Some(boundary) = laid.supervised.first().map(|span| span.start) else { return false };
    let around = |at: Option<usize>| at.and_then(|at| laid.text.chars().nth(at)).is_some_and(|c| !c.is_whitespace());
    around(boundary.checked_sub(1)) && around(Some(boundary))
}
