//! The rows of files whose columns have types (Parquet, Arrow), and values in them that have no JSON.

use serde_json::{Map, Value};

/// A row. Values without JSON are left out of its object. They are refused where a row's form reads their column, and count as
/// missing for rewards and objectives.
#[derive(Debug, Default)]
pub struct Record {
    /// The columns whose values have JSON.
    pub columns: Map<String, Value>,
    /// The others, each with why.
    pub unreadable: Vec<Unreadable>,
}

/// A value that has no JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its column.
    pub column: String,
    /// What it is, and how to write it so that it is read.
    pub what: String,
}

impl Record {
    /// Adds the value of a column, or why it has none.
    pub fn add(&mut self, column: &str, value: Result<Value, String>) {
        match value {
            Ok(value) => drop(self.columns.insert(column.to_owned(), value)),
            Err(what) => self.unreadable.push(Unreadable { column: column.to_owned(), what }),
        }
    }
}

/// Bytes without a type are text if they are UTF-8: many writers do not say that a column holds text.
///
/// # Errors
/// Other bytes.
pub fn text(bytes: &[u8]) -> Result<Value, String> {
    std::str::from_utf8(bytes).map(Value::from).map_err(|error| {
        format!(
            "bytes that are not UTF-8 text (from byte {} on): decode them when the file is written, or drop the column",
            error.valid_up_to()
        )
    })
}

/// The first name that occurs twice.
pub fn twice<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}
