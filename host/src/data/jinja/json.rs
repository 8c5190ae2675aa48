//! Converts JSON to values and back, like Python's `json`.

use super::error::Evaluated;
use super::meter::Meter;
use super::number;
use super::value::{DEEPEST, Dict, Value};

/// The only key of an object that represents a whole number of more than 64 bits; its value is the digits. The key
/// contains a code point that occurs in no text.
pub const INTEGER: &str = "\u{FDD2}integer";

/// A JSON value as Python reads it.
pub fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::None,
        serde_json::Value::Bool(truth) => Value::Bool(*truth),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number.into()),
            (None, Some(number)) => Value::Int(number.into()),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::str(text.as_str()),
        serde_json::Value::Array(items) => Value::list(items.iter().map(from_json).collect()),
        serde_json::Value::Object(object) => {
            if let (1, Some(serde_json::Value::String(digits))) = (object.len(), object.get(INTEGER)) {
                return digits.parse().map_or_else(|_| Value::BigInt(digits.as_str().into()), Value::Int);
            }
            let pairs = object.iter().map(|(key, value)| (Value::str(key.as_str()), from_json(value)));
            Value::dict(pairs.collect())
        }
    }
}

/// The keyword arguments of `json.dumps` that transformers' `tojson` takes.
pub struct Dump<'m> {
    pub ascii: bool,
    /// The text of one step of indentation.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
    pub meter: &'m Meter,
}

impl Dump<'_> {
    /// `json.dumps(value, ...)`.
    ///
    /// # Errors
    /// A value that JSON cannot hold, as in Python.
    pub fn text(&self, value: &Value) -> Evaluated<String> {
        let mut out = String::new();
        self.write(&mut out, value, 0)?;
        Ok(out)
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Evaluated<()> {
        if depth > DEEPEST {
            return Err(format!("a value nests deeper than {DEEPEST}, too deep for tojson"));
        }
        self.meter.spend(1)?;
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Float(number) => out.push_str(&float(*number)),
            Value::Int(number) => out.push_str(&number.to_string()),
            Value::BigInt(digits) => self.put(out, digits)?,
            Value::Str(text) => self.string(out, text)?,
            Value::List(items) | Value::Tuple(items) => {
                let items = items.iter().map(|item| (None, item)).collect();
                self.several(out, ['[', ']'], items, depth)?;
            }
            Value::Dict(dict) => self.object(out, dict, depth)?,
            // Python's Namespace of transformers is not a dict.
            other => return Err(format!("Object of type {} is not JSON serializable", other.kind())),
        }
        Ok(())
    }

    fn object(&self, out: &mut String, dict: &Dict, depth: usize) -> Evaluated<()> {
        let mut pairs: Vec<&(Value, Value)> = dict.iter().collect();
        if self.sort_keys {
            super::library::sequences::sort_by(&mut pairs, |pair| &pair.0, self.meter)?;
        }
        let pairs = pairs.into_iter().map(|(name, value)| Ok((Some(key(name)?), value)));
        self.several(out, ['{', '}'], pairs.collect::<Evaluated<_>>()?, depth)
    }

    fn several(
        &self,
        out: &mut String,
        ends: [char; 2],
        items: Vec<(Option<String>, &Value)>,
        depth: usize,
    ) -> Evaluated<()> {
        out.push(ends[0]);
        let line = |out: &mut String, depth: usize| -> Evaluated<()> {
            if let Some(indent) = &self.indent {
                out.push('\n');
                (0..depth).try_for_each(|_| self.put(out, indent))?;
            }
            Ok(())
        };
        let empty = items.is_empty();
        for (number, (name, value)) in items.into_iter().enumerate() {
            self.put(out, if number == 0 { "" } else { &self.item_separator })?;
            line(out, depth + 1)?;
            if let Some(name) = name {
                self.string(out, &name)?;
                self.put(out, &self.key_separator)?;
            }
            self.write(out, value, depth + 1)?;
        }
        if !empty {
            line(out, depth)?;
        }
        out.push(ends[1]);
        Ok(())
    }

    fn put(&self, out: &mut String, text: &str) -> Evaluated<()> {
        self.meter.grows(out.len() + text.len(), text.len())?;
        out.push_str(text);
        Ok(())
    }

    fn string(&self, out: &mut String, text: &str) -> Evaluated<()> {
        self.meter.grows(out.len() + text.len(), text.len())?;
        self.meter.spend(text.len() / 8)?;
        let start = out.len();
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                control if control < ' ' => {
                    self.meter.spend(1)?;
                    out.push_str(&format!("\\u{:04x}", u32::from(control)));
                }
                other if self.ascii && !(' '..='~').contains(&other) => {
                    self.meter.spend(1)?;
                    let mut units = [0; 2];
                    other.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
                }
                other => out.push(other),
            }
        }
        out.push('"');
        // Escapes lengthen a text up to six times.
        self.meter.grows(out.len(), out.len() - start)
    }
}

fn float(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value => number::repr(value),
    }
}

fn key(name: &Value) -> Evaluated<String> {
    Ok(match name {
        Value::Str(text) => text.to_string(),
        Value::None => "null".into(),
        Value::Bool(truth) => truth.to_string(),
        Value::Int(number) => number.to_string(),
        Value::BigInt(digits) => digits.to_string(),
        Value::Float(number) => float(*number),
        other => return Err(format!("keys must be str, int, float, bool or None, not {}", other.kind())),
    })
}
