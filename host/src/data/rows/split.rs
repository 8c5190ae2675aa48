//! Decides which rows are held out: a share of the questions, chosen by their hash; whole groups, chosen by theirs;
//! or by a column's value. In every case, no question is on both sides.

use std::collections::BTreeSet;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::row::Row;
use crate::data::error::{DataError, Result};

/// How rows are held out.
#[derive(Clone, Debug, PartialEq)]
pub enum Split {
    /// The questions whose hash falls into this share, in [0, 1): adding rows never moves a row to the other side.
    Share(f64),
    /// The same by the values of a column, so that rows that belong together stay together.
    Groups {
        /// The share of the groups.
        share: f64,
        /// The column.
        column: String,
    },
    /// By the value of the column with this name: one of [`TRAIN`] or [`HELD_OUT`].
    Column(String),
}

/// Values of a split column for training rows.
pub const TRAIN: &[&str] = &["train", "training"];
/// Values of a split column for evaluation rows.
pub const HELD_OUT: &[&str] = &["test", "validation", "valid", "val", "dev", "eval", "held_out"];

/// Rows on both sides.
#[derive(Debug, Default)]
pub struct Sides {
    /// To train on.
    pub train: Vec<Row>,
    /// To evaluate on.
    pub held_out: Vec<Row>,
    /// Number of training rows removed because their question is held out.
    pub leaks: usize,
}

/// Splits `rows` of the data called `name`.
///
/// # Errors
/// A share outside [0, 1); a column that a row lacks or that has an unknown value; a side without rows.
pub fn split(name: &str, rows: Vec<Row>, split: &Split) -> Result<Sides> {
    let (train, held_out) = match split {
        Split::Share(share) => by_hash(name, rows, *share, |row| Ok(row.question()))?,
        Split::Groups { share, column } => by_hash(name, rows, *share, |row| group(row, column))?,
        Split::Column(column) => by_column(rows, column)?,
    };
    Ok(without_shared_questions(train, held_out))
}

/// Both sides as given, without the training rows whose question is held out.
pub fn without_shared_questions(mut train: Vec<Row>, held_out: Vec<Row>) -> Sides {
    let questions: BTreeSet<String> = held_out.iter().map(Row::question).collect();
    let before = train.len();
    train.retain(|row| !questions.contains(&row.question()));
    Sides { leaks: before - train.len(), train, held_out }
}

fn by_hash(
    name: &str,
    rows: Vec<Row>,
    share: f64,
    key: impl Fn(&Row) -> Result<String>,
) -> Result<(Vec<Row>, Vec<Row>)> {
    if !(0.0..1.0).contains(&share) {
        return Err(DataError::HeldOutShare(share));
    }
    let places: Vec<f64> = rows.iter().map(|row| Ok(fraction(&key(row)?))).collect::<Result<_>>()?;
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for (row, place) in rows.into_iter().zip(places) {
        if place < share { held_out.push(row) } else { train.push(row) }
    }
    let what = name.to_owned();
    match (train.is_empty(), held_out.is_empty()) {
        (true, false) => Err(DataError::NothingToTrain { what, share }),
        (false, true) if share > 0.0 => Err(DataError::NothingHeldOut { what, share }),
        _ => Ok((train, held_out)),
    }
}

/// A number in [0, 1) that depends only on the text.
fn fraction(text: &str) -> f64 {
    let hash = Sha256::digest(text);
    let first = hash.iter().take(6).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    first as f64 / (1_u64 << 48) as f64
}

fn group(row: &Row, column: &str) -> Result<String> {
    match value(row, column)? {
        Value::String(text) => Ok(text.clone()),
        // 3 and 3.0 are the same group, however the file writes them.
        Value::Number(number) if !number.is_i64() && !number.is_u64() => {
            Ok(number.as_f64().map_or(number.to_string(), |number| number.to_string()))
        }
        other => Ok(other.to_string()),
    }
}

fn by_column(rows: Vec<Row>, column: &str) -> Result<(Vec<Row>, Vec<Row>)> {
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for row in rows {
        let word = value(&row, column)?.as_str().unwrap_or_default().to_lowercase();
        match word.as_str() {
            word if TRAIN.contains(&word) => train.push(row),
            word if HELD_OUT.contains(&word) => held_out.push(row),
            _ => {
                let known: Vec<&str> = TRAIN.iter().chain(HELD_OUT).copied().collect();
                let what = format!("{} is not a side; expected one of: {}", value(&row, column)?, known.join(", "));
                return Err(DataError::Json { place: row.place, key: column.to_owned(), what });
            }
        }
    }
    Ok((train, held_out))
}

fn value<'a>(row: &'a Row, column: &str) -> Result<&'a Value> {
    row.columns.get(column).filter(|value| !value.is_null()).ok_or_else(|| DataError::Json {
        place: row.place.clone(),
        key: column.to_owned(),
        what: "missing; the split needs it".into(),
    })
}
