//! Finds the segments of an answer in a row's text, and the tokens that they end in.

use super::laid::Laid;
use crate::data::error::{DataError, Result};
use crate::data::rows::kind::Part;
use crate::data::rows::row::{Content, Row};
use crate::data::rows::store::every::Every;
use crate::data::tokenizer::encode::Placed;

/// Returns for each token whether it holds the last character of a segment; empty if the row has no segments.
///
/// # Errors
/// Segments that a chat template changes, or two that end within one token.
pub(in crate::data::rows) fn segment_ends(row: &Row, laid: &Laid, placed: &Placed) -> Result<Vec<bool>> {
    if row.segments.is_empty() {
        return Ok(Vec::new());
    }
    let refuse = |what: String| DataError::Json { place: row.place.clone(), key: Part::Completion.name().into(), what };
    let places = places(row, laid).ok_or_else(|| {
        refuse(
            "the chat template changes the segments, so that their ends cannot be found in its text; leave out \
                data.chat_template, or choose a data.segment_separator that it keeps"
                .to_owned(),
        )
    })?;
    let mut ends = vec![false; placed.ids.len()];
    for (index, place) in places.into_iter().enumerate() {
        // White space that a tokenizer leaves out belongs to no token; the segment then ends in the token before it.
        let token = placed.offsets.iter().rposition(|(begin, end)| begin <= &place && begin < end);
        match token.and_then(|token| ends.get_mut(token)) {
            Some(end) if !*end => *end = true,
            _ => {
                let what = "ends within the same token as the one before it, so that they cannot be scored apart; choose \
                            another data.segment_separator";
                return Err(refuse(format!("segment {} {what}", index + 1)));
            }
        }
    }
    Ok(ends)
}

/// The places of the segments' last characters. A template may trim the answer: then the last segment ends earlier.
fn places(row: &Row, laid: &Laid) -> Option<Vec<usize>> {
    let (Some(Content::Text(answer)), Some(span)) = (row.parts.get(&Part::Completion), laid.supervised.last()) else {
        return None;
    };
    let within: String = laid.text.chars().take(span.end).skip(span.start).collect();
    let leading = answer.chars().count() - answer.trim_start().chars().count();
    let (at, cut, length) = [(answer.as_str(), 0), (answer.trim(), leading)].into_iter().find_map(|(text, cut)| {
        let at = within.get(..within.find(text)?)?.chars().count();
        Some((span.start + at, cut, text.chars().count()))
    })?;
    let place = |end: &usize| (end.checked_sub(cut)?.min(length)).checked_sub(1).map(|last| at + last);
    row.segments.iter().map(place).collect()
}

/// Checks that the completions of all rows are lists of segments, or those of none.
///
/// # Errors
/// The first row whose completion is a text or a message although another's is a list.
pub(in crate::data::rows) fn check_segments(rows: Every<'_>) -> Result<()> {
    let survey = rows.survey();
    if survey.with_segments == 0 || survey.with_segments == survey.rows {
        return Ok(());
    }
    match rows.find(|row| row.segments.is_empty())? {
        None => Ok(()),
        Some(row) => {
            let what =
                "not a list of texts, and in other rows it is one: give a list of one text, [\"...\"]".to_owned();
            Err(DataError::Json { place: row.place, key: Part::Completion.name().to_owned(), what })
        }
    }
}
