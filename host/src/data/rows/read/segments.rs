//! Completions that are lists of texts, the segments: the steps of a solution, for example.
//!
//! They become one text, in which a separator follows every segment, the last one too. That text is tokenised as a whole.

use serde_json::{Map, Value};

use super::refusal::{refuse, what};
use crate::data::error::Result;
use crate::data::place::Place;
use crate::data::rows::columns::NamedBy;
use crate::data::rows::kind::{Part, RowKind};
use crate::data::rows::row::{Content, Row};

/// What follows each segment unless `data.segment_separator` is set.
pub const SEPARATOR: &str = "\n";

/// The name of a list of segments in data sets for process supervision, such as TRL's.
const COMPLETIONS: &str = "completions";

/// Replaces a completion that is a list of texts, or is called `completions`, by these texts without a separator. Returns where
/// the segments end, in code points; nothing if the completion is not such a list.
///
/// # Errors
/// A list with a text and something else; `completions` that is not a list of texts although the row has no other answer.
pub(super) fn take(place: &Place, columns: &mut Map<String, Value>, kind: RowKind, by: &NamedBy) -> Result<Vec<usize>> {
    if kind != RowKind::PromptCompletion {
        return Ok(Vec::new());
    }
    let completion = Part::Completion.name();
    let there = |name: &str| columns.get(name).is_some_and(|value| !value.is_null());
    let begins_with_text =
        |value: &Value| value.as_array().is_some_and(|list| list.first().is_some_and(Value::is_string));
    let named = there(COMPLETIONS) && !there(completion) && there(Part::Prompt.name()) && !there(Part::Messages.name());
    let key = if named { COMPLETIONS } else { completion };
    let Some(Value::Array(list)) = columns.get(key).filter(|value| begins_with_text(value)) else {
        return match columns.get(key).filter(|_| named) {
            Some(other) => {
                let found = match other {
                    Value::Array(list) if list.is_empty() => "an empty list".to_owned(),
                    Value::Array(list) => format!("a list that begins with {}", list.first().map_or("", what)),
                    other => what(other).to_owned(),
                };
                let why = format!(
                    "{found}, expected a list of texts, the answer's segments; if it is the whole answer, {}",
                    by.rename(&[(completion, COMPLETIONS)])
                );
                Err(refuse(place, key, why))
            }
            None => Ok(Vec::new()),
        };
    };
    let (mut text, mut ends, mut length) = (String::new(), Vec::new(), 0);
    for (index, segment) in list.iter().enumerate() {
        let Value::String(segment) = segment else {
            let found = format!("{}, expected a string: a list of segments holds only texts", what(segment));
            return Err(refuse(place, &format!("{key}[{index}]"), found));
        };
        text.push_str(segment);
        length += segment.chars().count();
        ends.push(length);
    }
    columns.shift_remove(key);
    columns.insert(completion.to_owned(), text.into());
    Ok(ends)
}

/// Puts `separator` after every segment of a row's completion.
///
/// # Errors
/// A segment without any character, which therefore has no last one.
pub(in crate::data) fn separate(row: &mut Row, separator: &str) -> Result<()> {
    let Some(Content::Text(text)) = row.parts.get_mut(&Part::Completion) else { return Ok(()) };
    if row.segments.is_empty() {
        return Ok(());
    }
    let (characters, mut begin) = (text.chars().collect::<Vec<char>>(), 0);
    let (mut joined, mut length) = (String::new(), 0);
    for (index, end) in row.segments.iter_mut().enumerate() {
        joined.extend(characters.get(begin..*end).unwrap_or_default());
        joined.push_str(separator);
        let own = *end - begin + separator.chars().count();
        if own == 0 {
            let what = format!("segment {} is empty, and so is data.segment_separator: it has no end", index + 1);
            return Err(refuse(&row.place, Part::Completion.name(), what));
        }
        begin = *end;
        length += own;
        *end = length;
    }
    *text = joined;
    Ok(())
}
