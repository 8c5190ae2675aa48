//! Decides which rows are held out: a share of the questions, chosen by their hash; whole groups, chosen by theirs;
//! or by a column's value. In every case, no question is on both sides.

use std::collections::BTreeSet;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::row::Row;
use super::store::{Packed, Rows};
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
    pub train: Rows,
    /// To evaluate on.
    pub held_out: Rows,
    /// Number of training rows removed because their question is held out.
    pub leaks: usize,
}

impl Sides {
    /// Adds a row to the side that `split` decides.
    ///
    /// # Errors
    /// A share outside [0, 1); a column that the row lacks or that has an unknown value; a full disk.
    pub fn add(&mut self, packed: &Packed, split: &Split) -> Result<()> {
        let row = packed.row();
        let is_held_out = match split {
            Split::Share(share) => fraction(&row.question()) < checked(*share)?,
            Split::Groups { share, column } => fraction(&group(row, column)?) < checked(*share)?,
            Split::Column(column) => is_held_out(row, column)?,
        };
        if is_held_out { self.held_out.push(packed) } else { self.train.push(packed) }
    }

    /// Checks the sides of the data called `name` after the last row was added.
    ///
    /// # Errors
    /// A side without rows although the other has some.
    pub fn check(&self, name: &str, split: &Split) -> Result<()> {
        let (Split::Share(share) | Split::Groups { share, .. }) = split else { return Ok(()) };
        let (what, share) = (name.to_owned(), checked(*share)?);
        match (self.train.is_empty(), self.held_out.is_empty()) {
            (true, false) => Err(DataError::NothingToTrain { what, share }),
            (false, true) if share > 0.0 => Err(DataError::NothingHeldOut { what, share }),
            _ => Ok(()),
        }
    }

    /// Removes the training rows whose question is held out. `split`: how the sides were made; `None`: from separate files.
    ///
    /// # Errors
    /// Rows that cannot be read again.
    pub fn remove_shared_questions(&mut self, split: Option<&Split>) -> Result<()> {
        // Rows with the same question are on one side already.
        if matches!(split, Some(Split::Share(_))) {
            return Ok(());
        }
        let mut questions = BTreeSet::new();
        for row in self.held_out.iter() {
            questions.insert(digest(&row?.question()));
        }
        let kept = self.train.iter().map(|row| Ok(!questions.contains(&digest(&row?.question()))));
        let kept = kept.collect::<Result<Vec<bool>>>()?;
        self.leaks = kept.iter().filter(|kept| !**kept).count();
        if self.leaks > 0 { self.train.retain(&kept) } else { Ok(()) }
    }
}

fn checked(share: f64) -> Result<f64> {
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err(DataError::HeldOutShare(share)) }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
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

fn is_held_out(row: &Row, column: &str) -> Result<bool> {
    let value = value(row, column)?;
    let word = value.as_str().unwrap_or_default().to_lowercase();
    match word.as_str() {
        word if TRAIN.contains(&word) => Ok(false),
        word if HELD_OUT.contains(&word) => Ok(true),
        _ => {
            let known: Vec<&str> = TRAIN.iter().chain(HELD_OUT).copied().collect();
            let what = format!("{value} is not a side; expected one of: {}", known.join(", "));
            Err(DataError::Json { place: row.place.clone(), key: column.to_owned(), what })
        }
    }
}

fn value<'a>(row: &'a Row, column: &str) -> Result<&'a Value> {
    row.columns.get(column).filter(|value| !value.is_null()).ok_or_else(|| DataError::Json {
        place: row.place.clone(),
        key: column.to_owned(),
        what: "missing; the split needs it".into(),
    })
}
