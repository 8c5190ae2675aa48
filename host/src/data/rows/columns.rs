//! The names of columns, and which of them are numbers or lists of numbers.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::batch::names;
use serde_json::Value;

use super::counts::NOT_IN;
use super::row::Row;
use super::text::{number, numbers};
use crate::data::error::{DataError, Result};

/// The file's names for the columns that have a meaning here: `prompt` = "question". If the file also has its own
/// column of the meaningful name, that column is dropped.
pub type Columns = BTreeMap<String, String>;

/// Columns with numbers (or true and false) in every row, and columns with numbers in only some rows.
pub(super) fn numeric_columns(rows: &[&Row]) -> (Vec<String>, Vec<String>) {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, _) in rows.iter().flat_map(|row| row.columns.iter().filter(|(_, value)| number(value).is_some())) {
        *numbers.entry(name).or_default() += 1;
    }
    let (whole, ragged): (Vec<_>, Vec<_>) = numbers.into_iter().partition(|(_, count)| *count == rows.len());
    let names = |columns: Vec<(&str, usize)>| columns.into_iter().map(|(name, _)| name.to_owned()).collect();
    (names(whole), names(ragged))
}

/// Columns with lists of numbers in every row, and columns with them in only some rows, each with the first row that has none.
///
/// # Errors
/// A column of lists whose number of values would have the name of another column.
pub(super) fn list_columns(rows: &[&Row]) -> Result<(Vec<String>, Vec<String>)> {
    let list = |row: &Row, name: &str| row.columns.get(name).and_then(numbers);
    let filled = |value: &Value| numbers(value).is_some_and(|list| !list.is_empty());
    let columns = rows.iter().flat_map(|row| row.columns.iter().filter(|(_, value)| filled(value)));
    let every: BTreeSet<&str> = columns.map(|(name, _)| name.as_str()).collect();
    let (mut whole, mut ragged) = (Vec::new(), Vec::new());
    for name in every {
        if let Some(without) = rows.iter().find(|row| list(row, name).is_none()) {
            ragged.push(format!("{name}{NOT_IN}{})", without.place));
            continue;
        }
        let length = format!("{name}{}", names::LENGTH);
        if let Some(row) = rows.iter().find(|row| row.columns.contains_key(&length)) {
            let what = format!("the name of the number of values of the list `{name}`; rename one of them");
            return Err(DataError::Json { place: row.place.clone(), key: length, what });
        }
        whole.push(name.to_owned());
    }
    Ok((whole, ragged))
}
