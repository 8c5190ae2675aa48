//! The error that refuses a row, and the names of JSON types in it.

use serde_json::Value;

use crate::data::error::DataError;
use crate::data::place::Place;

/// The type of a JSON value, with its article.
pub(in crate::data::rows) fn what(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The error for a row: its place, the key if a particular one is wrong, and what is wrong.
pub(super) fn refuse(place: &Place, key: &str, what: String) -> DataError {
    DataError::Json { place: place.clone(), key: key.to_owned(), what }
}
