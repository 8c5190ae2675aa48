//! Typed access to the metadata of a GGUF file; errors name file and key.

use super::header::{Gguf, Value, unusable};
use crate::data::error::{DataError, Result};

impl Gguf {
    /// The error for a key.
    pub(super) fn wrong(&self, key: &str, expected: &str) -> DataError {
        let what = match self.metadata.get(key) {
            None => format!("the key `{key}` is missing"),
            Some(value) => {
                let mut found: String = value.to_string().chars().take(80).collect();
                if found.chars().count() == 80 {
                    found += "...";
                }
                format!("`{key}` is {found}, expected {expected}")
            }
        };
        unusable(&self.path, what)
    }

    /// An integer from 0, if the key exists.
    pub(super) fn optional_size(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let size = match value {
            Value::Integer(value) => u64::try_from(*value).ok(),
            _ => None,
        };
        size.map(Some).ok_or_else(|| self.wrong(key, "an integer from 0"))
    }

    /// An integer from 0.
    pub(super) fn size(&self, key: &str) -> Result<u64> {
        self.optional_size(key)?.ok_or_else(|| self.wrong(key, "an integer from 0"))
    }

    /// A number, if the key exists. One that is stored as f32 is returned with the shortest decimal digits that name it,
    /// because it was rounded when the file was written: 1e-5 and not 9.99999974e-6.
    pub(super) fn optional_float(&self, key: &str) -> Result<Option<f64>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) => Ok(Some(shortest(*value))),
            Some(Value::Integer(value)) => Ok(Some(*value as f64)),
            Some(_) => Err(self.wrong(key, "a number")),
        }
    }

    /// A flag, if the key exists.
    pub(super) fn optional_flag(&self, key: &str) -> Result<Option<bool>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// A text, if the key exists.
    pub(super) fn optional_text(&self, key: &str) -> Result<Option<&str>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(value)) => Ok(Some(value)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// A list of texts, if the key exists.
    pub(super) fn optional_texts(&self, key: &str) -> Result<Option<&[String]>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Texts(value)) => Ok(Some(value)),
            // An empty list may have any type.
            Some(Value::Numbers(value)) if value.is_empty() => Ok(Some(&[])),
            Some(_) => Err(self.wrong(key, "a list of texts")),
        }
    }

    /// A list of numbers, if the key exists.
    pub(super) fn optional_numbers(&self, key: &str) -> Result<Option<&[f64]>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Numbers(value)) => Ok(Some(value)),
            Some(_) => Err(self.wrong(key, "a list of numbers")),
        }
    }
}

/// The f64 with the shortest decimal digits that round to the same f32, if the value is an f32; else the value.
fn shortest(value: f64) -> f64 {
    let narrow = value as f32;
    if f64::from(narrow) == value { narrow.to_string().parse().unwrap_or(value) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches values as Rust writes them: `Integer(0)`.
    #[test]
    fn values_are_written_as_the_user_reads_them() {
        let shown = [Value::Integer(0), Value::Float(0.5), Value::Text("a".into()), Value::Numbers(vec![1.0])];
        assert_eq!(shown.map(|value| value.to_string()), ["0", "0.5", "\"a\"", "a list of 1 number"]);
    }

    /// Catches an epsilon that is not the one of the original model, and an f64 that is rounded.
    #[test]
    fn an_f32_becomes_the_number_it_was_rounded_from() {
        assert_eq!(shortest(f64::from(1e-5_f32)), 1e-5);
        assert_eq!(shortest(f64::from(1e-6_f32)), 1e-6);
        assert_eq!(shortest(f64::from(500_000_f32)), 500_000.0);
        assert_eq!(shortest(0.123_456_789_012), 0.123_456_789_012);
    }
}
