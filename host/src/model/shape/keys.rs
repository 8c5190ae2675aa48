//! Typed access to the keys of a JSON file of a model folder; errors name file, key and value.

use serde_json::{Map, Value};

use crate::data::Inputs;
use crate::error::{Error, Result};

/// Maximum number of token ids that one key may list.
const MOST_IDS: usize = 4096;

/// Typed access to the keys of one file.
pub(in crate::model) struct Reader<'a> {
    pub(in crate::model) file: &'a str,
    pub(in crate::model) map: &'a Map<String, Value>,
}

impl Reader<'_> {
    /// Returns the key's value; absent and null are the same.
    pub(in crate::model) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(in crate::model) fn missing(&self, key: &str) -> Error {
        Error::request(format!("{}: key `{key}` is missing", self.file))
    }

    pub(in crate::model) fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        Error::request(format!("{}: `{key}` is {value}, expected {expected}", self.file))
    }

    pub(in crate::model) fn refuse(&self, key: &str, value: &Value) -> Error {
        Error::request(format!("{}: `{key}` = {value} is not implemented", self.file))
    }

    pub(in crate::model) fn optional_size(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(size) if size > 0 => Ok(Some(size)),
            _ => Err(self.wrong(key, value, "an integer from 1")),
        }
    }

    /// Returns the size of a key, or `absent` if there is no such key; a key that is null is `None`.
    pub(in crate::model) fn size_or(&self, key: &str, absent: Option<u64>) -> Result<Option<u64>> {
        if self.map.contains_key(key) { self.optional_size(key) } else { Ok(absent) }
    }

    /// Returns the number of a key, or `absent` if there is no such key; a key that is null is `None`.
    pub(in crate::model) fn positive_or(&self, (key, absent): (&str, Option<f64>)) -> Result<Option<f64>> {
        let Some(value) = self.map.get(key) else { return Ok(absent) };
        match value.as_f64() {
            _ if value.is_null() => Ok(None),
            Some(number) if number > 0.0 => Ok(Some(number)),
            _ => Err(self.wrong(key, value, "a number above 0, or null")),
        }
    }

    pub(in crate::model) fn size(&self, key: &str) -> Result<u64> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key))
    }

    pub(in crate::model) fn float(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().ok_or_else(|| self.wrong(key, value, "a number"))
    }

    pub(in crate::model) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    /// Returns the token ids of a key: one, a list, or none. An id outside the vocabulary is not a token: -1 means none, others
    /// are noted.
    pub(in crate::model) fn ids(&self, key: &str, vocab: u64, notes: &mut Vec<String>) -> Result<Vec<u32>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let all: Option<Vec<i64>> = match value {
            Value::Array(ids) if ids.len() > MOST_IDS => {
                let (path, count) = (self.file, ids.len());
                return Err(Error::request(format!("{path}: `{key}` lists {count} ids, expected at most {MOST_IDS}")));
            }
            Value::Array(ids) => ids.iter().map(Value::as_i64).collect(),
            one => one.as_i64().map(|id| vec![id]),
        };
        let all = all.ok_or_else(|| self.wrong(key, value, "a token id, a list of them, or null"))?;
        let mut ids = Vec::new();
        for id in all {
            match u32::try_from(id).ok().filter(|id| u64::from(*id) < vocab) {
                Some(id) if !ids.contains(&id) => ids.push(id),
                Some(_) => {}
                None if id == -1 => {}
                None => notes.push(format!(
                    "{}: `{key}` contains the token id {id}, but the vocabulary has {vocab} ids: it is ignored",
                    self.file
                )),
            }
        }
        Ok(ids)
    }

    pub(in crate::model) fn text(&self, key: &str) -> Result<Option<String>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| self.wrong(key, value, "a string"))
    }
}

/// Reads the text of a JSON file in the folder.
pub(in crate::model) fn read_text(inputs: &mut Inputs, name: &str) -> Result<String> {
    let text = String::from_utf8(inputs.read(name)?);
    let fail = |cause| Error::request(format!("{}: not UTF-8 text", inputs.path(name).display())).with_cause(cause);
    text.map_err(|cause| fail(cause.utf8_error()))
}
