//! An experiment's file as a tree of values with their places.
//!
//! This module only reads TOML; what a key means is defined where the key is declared. `config::overrides`
//! merges the command line into the tree.

use std::sync::Arc;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistake, Place};

/// The most characters of a value that a message repeats.
const SHOWN: usize = 40;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where its key was written; for a list's element, its own place.
    pub place: Place,
}

/// A TOML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer.
    Int(i64),
    /// A number, possibly infinite or NaN; also an integer that does not fit into a signed 64-bit one.
    Float(f64),
    /// true or false.
    Bool(bool),
    /// A date or time, which no key accepts; kept as text for the error message.
    Date(String),
    /// An array.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

/// A table's entries in the order they were written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table(pub Vec<Entry>);

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key's own name.
    pub key: String,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// The value for "expected ..., found ...": type and value, shortened.
    pub fn found(&self) -> String {
        match &self.value {
            Value::Text(text) => format!("the string \"{}\"", shorten(text).escape_debug()),
            Value::Int(number) => format!("the integer {number}"),
            Value::Float(number) => format!("the number {number:?}"),
            Value::Bool(flag) => format!("`{flag}`"),
            Value::Date(text) => format!("the date {text} (quote it to make it a string)"),
            Value::List(items) if items.is_empty() => "an empty list".to_owned(),
            Value::List(_) => format!("the list {}", shorten(&self.to_json().to_string())),
            Value::Table(_) => "a table".to_owned(),
        }
    }

    /// The node at a dotted path; list elements by number from 0.
    pub fn find(&self, path: &str) -> Option<&Node> {
        let mut at = self;
        for part in path.split('.') {
            at = match &at.value {
                Value::Table(table) => &table.0.iter().find(|entry| entry.key == part)?.node,
                Value::List(items) => items.get(part.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(at)
    }

    /// The value as JSON: what JSON cannot represent becomes a string or null.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Text(text) | Value::Date(text) => Json::from(text.as_str()),
            Value::Int(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Bool(flag) => Json::from(*flag),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Table(table) => {
                let pair = |entry: &Entry| (entry.key.clone(), entry.node.to_json());
                table.0.iter().map(pair).collect()
            }
        }
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    format!("{}...", text.chars().take(SHOWN).collect::<String>())
}

/// Parses `text` of `file`. All errors of the TOML itself are reported together.
pub fn parse(file: &Arc<str>, text: &str) -> Result<Node, Vec<Mistake>> {
    let lines = Lines::of(text);
    let place = |offset| lines.place(file, text, offset);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(from_table(table.get_ref(), Place::File(file.clone()), &place));
    }
    let mistake = |error: &toml::de::Error| {
        let offset = error.span().map_or(text.len(), |span| span.start);
        Mistake::new(place(offset), "", error.message())
    };
    Err(errors.iter().map(mistake).collect())
}

/// Where the lines of a text begin, so that a place in it is found without scanning the text before it.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        Lines([0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    fn place(&self, file: &Arc<str>, text: &str, offset: usize) -> Place {
        let line = self.0.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|line| self.0.get(line)).copied().unwrap_or(0);
        let before = text.get(start..offset).or(text.get(start..)).unwrap_or_default();
        Place::At { file: file.clone(), line, column: before.chars().count() + 1 }
    }
}

/// The node of `value`, whose key is at `own`; `place` converts an offset of the text to a place.
pub fn from_value(value: &DeValue<'_>, own: Place, place: &dyn Fn(usize) -> Place) -> Node {
    let value = match value {
        DeValue::Table(table) => return from_table(table, own, place),
        DeValue::Array(items) => {
            let element = |item: &Spanned<DeValue<'_>>| from_value(item.get_ref(), place(item.span().start), place);
            Value::List(items.iter().map(element).collect())
        }
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Int(number),
            Err(_) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
    };
    Node { value, place: own }
}

fn from_table(table: &DeTable<'_>, own: Place, place: &dyn Fn(usize) -> Place) -> Node {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        let node = from_value(value.get_ref(), place(key.span().start), place);
        Entry { key: name.to_string(), node }
    };
    let mut entries: Vec<Entry> = table.iter().map(entry).collect();
    entries.sort_by(|a, b| a.node.place.cmp(&b.node.place));
    Node { value: Value::Table(Table(entries)), place: own }
}

/// `parent.name`.
pub fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// The place of `key`: its own, or that of the nearest written table above it; if none was written, the root's.
pub fn place_of(root: &Node, key: &str) -> Place {
    let mut path = key;
    while !path.is_empty() {
        if let Some(node) = root.find(path) {
            return node.place.clone();
        }
        path = path.rsplit_once('.').map_or("", |(above, _)| above);
    }
    root.place.clone()
}

/// The names by which the user wrote the tables of a list: `objective`, or `objective.0` and so on.
pub fn keys_of(list: &str, root: &Node, count: usize) -> Vec<String> {
    let is_list = root.find(&format!("{list}.0")).is_some();
    (0..count).map(|index| if is_list { format!("{list}.{index}") } else { list.to_owned() }).collect()
}
