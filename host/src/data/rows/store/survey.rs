//! What the columns of many rows hold, counted while rows are added, so that no later check has to read them again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::data::rows::row::Row;
use crate::data::rows::text::{number, numbers};

/// What the columns of rows hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The rows.
    pub rows: usize,
    /// Rows with a part that consists of messages.
    pub with_messages: usize,
    /// Rows whose completion is in segments.
    pub with_segments: usize,
    /// The parts that any row has.
    parts: BTreeSet<&'static str>,
    columns: BTreeMap<String, Column>,
}

/// How many values of a column are of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Column {
    /// Numbers that a 64-bit float holds exactly, and true and false.
    numbers: usize,
    /// Numbers that it does not hold exactly.
    inexact: usize,
    /// Lists of numbers, also empty ones.
    lists: usize,
    /// Lists of at least one number.
    filled_lists: usize,
    /// Texts, lists and objects.
    others: usize,
}

impl Survey {
    /// Adds a row.
    pub fn add(&mut self, row: &Row) {
        self.rows += 1;
        self.with_messages += usize::from(row.has_messages());
        self.with_segments += usize::from(!row.segments.is_empty());
        self.parts.extend(row.parts.keys().map(|part| part.name()));
        for (name, value) in &row.columns {
            if !self.columns.contains_key(name) {
                self.columns.insert(name.clone(), Column::default());
            }
            let Some(column) = self.columns.get_mut(name) else { continue };
            column.numbers += usize::from(number(value).is_some());
            column.inexact += usize::from(value.is_number() && number(value).is_none());
            column.others += usize::from(matches!(value, Value::String(_) | Value::Array(_) | Value::Object(_)));
            if let Some(list) = numbers(value) {
                column.lists += 1;
                column.filled_lists += usize::from(!list.is_empty());
            }
        }
    }

    /// What the columns of a row hold.
    #[cfg(test)]
    pub fn of(row: &Row) -> Survey {
        let mut survey = Survey::default();
        survey.add(row);
        survey
    }

    /// Adds the rows of another survey.
    pub fn extend(&mut self, other: &Survey) {
        self.rows += other.rows;
        self.with_messages += other.with_messages;
        self.with_segments += other.with_segments;
        self.parts.extend(&other.parts);
        for (name, theirs) in &other.columns {
            let own = self.columns.entry(name.clone()).or_default();
            own.numbers += theirs.numbers;
            own.inexact += theirs.inexact;
            own.lists += theirs.lists;
            own.filled_lists += theirs.filled_lists;
            own.others += theirs.others;
        }
    }

    /// Whether any row has a part or a column of this name.
    pub fn has(&self, name: &str) -> bool {
        self.columns.contains_key(name) || self.parts.contains(name)
    }

    fn names(&self, wanted: impl Fn(&Column) -> bool) -> impl Iterator<Item = &str> {
        self.columns.iter().filter(move |(_, column)| wanted(column)).map(|(name, _)| name.as_str())
    }

    /// Columns with texts, lists or objects that are not lists of numbers.
    pub fn others(&self) -> impl Iterator<Item = &str> {
        self.names(|column| column.others > 0 && column.filled_lists == 0)
    }

    /// Columns with numbers, true and false, or lists of numbers.
    pub fn any_numbers(&self) -> impl Iterator<Item = &str> {
        self.names(|column| column.numbers > 0 || column.filled_lists > 0)
    }

    /// Columns with an integer that a 64-bit float cannot hold exactly.
    pub fn inexact(&self) -> Vec<String> {
        self.names(|column| column.inexact > 0).map(str::to_owned).collect()
    }

    /// Columns with numbers (or true and false) in every row, and columns with numbers in only some rows.
    pub fn numeric_columns(&self) -> (Vec<String>, Vec<String>) {
        let names = self.names(|column| column.numbers > 0).map(str::to_owned);
        names.partition(|name| self.columns.get(name).is_some_and(|column| column.numbers == self.rows))
    }

    /// Columns with lists of numbers, each with the number of rows that have one.
    pub(super) fn lists(&self) -> impl Iterator<Item = (&str, usize)> {
        let names = self.names(|column| column.filled_lists > 0);
        names.map(|name| (name, self.columns.get(name).map_or(0, |column| column.lists)))
    }

    /// Whether any row has the column.
    pub(super) fn has_column(&self, name: &str) -> bool {
        self.columns.contains_key(name)
    }
}
