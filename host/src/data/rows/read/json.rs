//! Strict reading of the JSON values of rows: every error has its place and what is wrong.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::integers;
use crate::data::rows::columns::Columns;

/// Why a value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The byte of the text at which the error was found.
    pub at: usize,
    /// What is wrong, with the column, counted from 1 within its line.
    pub what: String,
    /// Whether the text ends within the value.
    pub cut_off: bool,
}

/// Returns the value that begins at byte `start` of `text`, and the byte after it. Text after the value is ignored.
///
/// # Errors
/// Text that is not JSON; a duplicate key in an object; an integer of more than 64 bits, except those that only a
/// chat template reads ([`integers::keep`]; `names` are the column names of the file).
pub fn value_at(text: &str, start: usize, names: &Columns) -> Result<(Value, usize), Fault> {
    let (value, end) = strict(text, start)?;
    let whole = text.get(start..end).unwrap_or_default();
    if !has_large(&value) || large_integer(whole).is_none() {
        return Ok((value, end));
    }
    let kept = integers::keep(whole, names);
    if let Some(at) = large_integer(&kept) {
        // The integers that `keep` handled are in strings now, so this is the first digit of one that it did not
        // handle.
        let digits: String = kept[at..].chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect();
        let at = start + whole.find(&digits).unwrap_or_default();
        let key = last_key(&text[start..at]).map_or("it".to_owned(), |key| format!("`{key}`"));
        let what = format!(
            "the integer at column {} has more than 64 bits and would be rounded: write it as a string, or remove {key} if nothing \
             reads it",
            column(text, at)
        );
        return Err(Fault { at, what, cut_off: false });
    }
    Ok((strict(&kept, 0)?.0, end))
}

/// The last key in `text`, which ends where the key's value, or something inside that value, begins.
fn last_key(text: &str) -> Option<&str> {
    let end = ["\":", "\" :"].iter().filter_map(|colon| text.rfind(colon)).max()?;
    text[..end].rsplit_once('"').map(|(_, key)| key)
}

fn strict(text: &str, start: usize) -> Result<(Value, usize), Fault> {
    let rest = text.get(start..).unwrap_or_default();
    let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Strict>();
    let value = match stream.next() {
        Some(Ok(Strict(value))) => value,
        Some(Err(error)) => return Err(fault(text, start, &error)),
        None => return Err(Fault { at: text.len(), what: "no value".into(), cut_off: true }),
    };
    let end = start + stream.byte_offset();
    Ok((value, end))
}

/// The column of byte `at` in its line, in characters, counted from 1.
pub fn column(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    1 + before.rsplit('\n').next().unwrap_or_default().chars().count()
}

fn fault(text: &str, start: usize, error: &serde_json::Error) -> Fault {
    let message = error.to_string();
    let reason = message.rsplit_once(" at line ").map_or(message.as_str(), |(reason, _)| reason);
    if error.is_eof() {
        let what = format!("not JSON: cut off at column {} ({reason})", column(text, text.trim_end().len()));
        return Fault { at: text.len(), what, cut_off: true };
    }
    let rest = text.get(start..).unwrap_or_default();
    let line: usize = rest.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let mut at = (start + line + error.column().saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    if error.is_data() {
        return Fault { at, what: reason.to_owned(), cut_off: false };
    }
    let (at, remedy) = match foreign_word(text, start, at) {
        Some((at, remedy)) => (at, remedy),
        None => (at, ""),
    };
    if reason.contains("surrogate") || reason.contains("end of hex escape") {
        let what = format!(
            "not JSON: half of a pair of surrogates (\\uD800 to \\uDFFF) at column {}: such a character is written with both halves, \
             or as itself; Python writes whole ones: json.dumps(text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace'))",
            column(text, at)
        );
        return Fault { at, what, cut_off: false };
    }
    let found: String = text[at..].chars().take_while(|c| !matches!(c, '\n' | '\r')).take(24).collect();
    let what = match (remedy, found.as_str()) {
        ("", "") => format!("not JSON: {reason} at column {}", column(text, at)),
        ("", _) => format!("not JSON: {reason} at column {}, found {found:?}", column(text, at)),
        (remedy, _) => {
            let word = match found.starts_with('\'') {
                true => "'".to_owned(),
                false => found.chars().take_while(|c| c.is_alphabetic() || *c == '-').collect(),
            };
            format!("not JSON: {word} at column {}: {remedy}", column(text, at))
        }
    };
    Fault { at, what, cut_off: false }
}

/// Words of other notations that are not JSON.
const FOREIGN: &[(&str, &str)] = &[
    ("NaN", "JSON has no such number; write null"),
    ("nan", "JSON has no such number; write null"),
    ("-NaN", "JSON has no such number; write null"),
    ("Infinity", "JSON has no such number; write null"),
    ("-Infinity", "JSON has no such number; write null"),
    ("inf", "JSON has no such number; write null"),
    ("-inf", "JSON has no such number; write null"),
    ("None", "Python's word; JSON writes null (json.dumps writes it so)"),
    ("True", "Python's word; JSON writes true (json.dumps writes it so)"),
    ("False", "Python's word; JSON writes false (json.dumps writes it so)"),
    ("undefined", "JSON writes null"),
    ("'", "JSON puts strings and keys in double quotes (Python: json.dumps, not str)"),
];

/// The foreign word that begins at byte `at` or shortly before it: some errors are found only inside the word.
fn foreign_word(text: &str, start: usize, at: usize) -> Option<(usize, &'static str)> {
    (start.max(at.saturating_sub(2))..=at).filter(|place| text.is_char_boundary(*place)).find_map(|place| {
        let rest = &text[place..];
        let stands_here = |word: &str| {
            let after = rest.strip_prefix(word).map(|rest| rest.chars().next());
            after.is_some_and(|next| word == "'" || !next.is_some_and(char::is_alphanumeric))
        };
        let (_, remedy) = FOREIGN.iter().find(|(word, _)| stands_here(word))?;
        Some((place, *remedy))
    })
}

fn has_large(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64() && number.as_f64().is_some_and(|number| number.abs() >= 2f64.powi(63)),
        Value::Array(list) => list.iter().any(has_large),
        Value::Object(map) => map.values().any(has_large),
        _ => false,
    }
}

/// The byte at which the JSON text has an integer that needs more than 64 bits.
fn large_integer(text: &str) -> Option<usize> {
    let (bytes, mut at, mut in_string) = (text.as_bytes(), 0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let length = bytes[at..]
                    .iter()
                    .take_while(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
                    .count();
                let number = &text[at..at + length];
                let whole = !number.contains(['.', 'e', 'E']);
                if whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(at);
                }
                at += length;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// A value in which no object has a duplicate key.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Strict, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Strict(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Strict, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` occurs twice in one object; keep one")));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Strict(Value::Object(map)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_at(text: &str, start: usize) -> Result<(Value, usize), Fault> {
        super::value_at(text, start, &Columns::default())
    }

    fn what(text: &str) -> String {
        value_at(text, 0).unwrap_err().what
    }

    /// Catches a second value for a key that silently replaces the first, at any depth, and a false match of the
    /// key's text within a string.
    #[test]
    fn a_duplicate_key_is_refused() {
        assert_eq!(what(r#"{"a": 1, "b": {"c": 1, "c": 2}}"#), "the key `c` occurs twice in one object; keep one");
        assert!(value_at(r#"{"a": {"a": "\"a\": 1"}, "b": ["a", "a"]}"#, 0).is_ok());
    }

    /// Catches integers that become floats, and floats that are treated as integers.
    #[test]
    fn gotcha_53_integers_stay_exact_or_are_refused() {
        for exact in [
            "9007199254740993",
            "-9223372036854775808",
            "18446744073709551615",
            "1e20",
            "1.5",
            "\"18446744073709551616\"",
        ] {
            let (value, _) = value_at(exact, 0).unwrap_or_else(|fault| panic!("{exact}: {fault:?}"));
            let written = value.to_string();
            assert!(exact == "1e20" || written == exact, "{exact}: {written}");
        }
        for large in ["18446744073709551616", "-9223372036854775809"] {
            let reason = "has more than 64 bits and would be rounded: write it as a string, or remove";
            assert_eq!(
                what(&format!("[\"7\", {large}]")),
                format!("the integer at column 7 {reason} it if nothing reads it")
            );
            let nested = format!("{{\"7\": 7, \"n\" : {{\"m\": [{large}]}}}}");
            assert_eq!(what(&nested), format!("the integer at column 23 {reason} `m` if nothing reads it"));
            for row in [format!("{{\"a\": 7, \"m\" : {large}}}"), format!("{{\"a\" : 7, \"m\": {large}}}")] {
                assert!(what(&row).ends_with("or remove `m` if nothing reads it"), "{row}: {}", what(&row));
            }
        }
    }

    /// Catches an error that only contains "expected value".
    #[test]
    fn words_of_other_notations_are_named() {
        for (text, expected) in [
            ("{\"a\": NaN}", "not JSON: NaN at column 7: JSON has no such number; write null"),
            ("{\"a\": -Infinity}", "not JSON: -Infinity at column 7: JSON has no such number; write null"),
            ("{\"a\": None}", "not JSON: None at column 7: Python's word; JSON writes null (json.dumps writes it so)"),
            (
                "{'a': 1}",
                "not JSON: ' at column 2: JSON puts strings and keys in double quotes (Python: json.dumps, not str)",
            ),
        ] {
            assert_eq!(what(text), expected, "{text}");
        }
    }
}
