//! A plugin's options: the keys of `[backend]` and `[objective]` that the host does not know, checked against the
//! plugin's manifest once that is loaded.

use plugin_api::manifest::OptionSpec;
use serde_json::{Map, Value as Json};

use super::overrides::{Override, apply_override};
use super::schema;
use crate::error::{Error, Result};
use crate::keys::mistake::{Mistake, Place, suggestion};
use crate::keys::tree::{Entry, Node, Table, Value, join};

/// The keys of one plugin's table that the host does not know, with their places.
#[derive(Debug, Clone, PartialEq)]
pub struct SpannedTable {
    key: String,
    place: Place,
    entries: Vec<Entry>,
    schema: &'static str,
}

impl SpannedTable {
    /// Creates it from the `entries` of the table `key` at `place`; `schema` is the table's path in the schema.
    pub fn new(key: &str, place: Place, entries: Vec<Entry>, schema: &'static str) -> Self {
        Self { key: key.to_owned(), place, entries, schema }
    }

    /// The table's own key: `backend`, `objective` or `objective.1`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The table's place.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The names that the user wrote.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }
}

/// Returns the options of `table`, checked against `specs` and completed with their defaults, in the order of
/// `specs`. Integers are accepted where floats are declared and become floats. All mistakes are returned together.
pub fn check_options(specs: &[OptionSpec], table: &SpannedTable) -> Result<Map<String, Json>, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    for entry in &table.entries {
        if !specs.iter().any(|spec| spec.name == entry.key) {
            mistakes.push(unknown(specs, table, entry));
        }
    }
    let mut options = Map::new();
    for spec in specs {
        match table.entries.iter().find(|entry| entry.key == spec.name) {
            Some(entry) => match value(spec, &entry.node) {
                Some(value) => _ = options.insert(spec.name.clone(), value),
                None => mistakes.push(wrong(spec, table, entry)),
            },
            None if spec.default.is_null() => {
                let meant =
                    mistakes.iter().any(|mistake| mistake.meant.as_deref() == Some(&join(&table.key, &spec.name)));
                if !meant {
                    let message =
                        format!("missing and without a default; expected {}: {}", expected(spec), spec.meaning);
                    mistakes.push(Mistake::new(table.place.clone(), join(&table.key, &spec.name), message));
                }
            }
            None => _ = options.insert(spec.name.clone(), canonical(spec, &spec.default)),
        }
    }
    if mistakes.is_empty() { Ok(options) } else { Err(mistakes) }
}

/// Returns the options that `given` names on the command line, checked against `specs` and completed with their
/// defaults.
///
/// # Errors
/// A request error with every mistake.
pub fn from_command_line(specs: &[OptionSpec], given: &[Override]) -> Result<Map<String, Json>> {
    let place = Place::Override { index: 0, label: "--option".into() };
    let mut root = Node { value: Value::Table(Table::default()), place: place.clone() };
    let applied = given.iter().enumerate().try_for_each(|(index, over)| apply_override(&mut root, index, over));
    let entries = match root.value {
        Value::Table(table) => table.0,
        _ => Vec::new(),
    };
    applied
        .map_err(|mistake| vec![mistake])
        .and_then(|()| check_options(specs, &SpannedTable::new("", place, entries, NO_SCHEMA)))
        .map_err(|mistakes| {
            Error::request("a plugin option is invalid").with_details(mistakes.iter().map(Mistake::to_string))
        })
}

/// A path below which the host has no keys.
const NO_SCHEMA: &str = "option";

fn unknown(specs: &[OptionSpec], table: &SpannedTable, entry: &Entry) -> Mistake {
    let mut names: Vec<&str> = schema::children(table.schema).collect();
    names.extend(specs.iter().map(|spec| spec.name.as_str()));
    let meant = crate::keys::mistake::nearest(&entry.key, names.iter().copied()).map(|name| join(&table.key, name));
    let message = format!("unknown key; {}", suggestion(&entry.key, names.iter().copied()));
    Mistake { meant, ..Mistake::new(entry.node.place.clone(), join(&table.key, &entry.key), message) }
}

fn wrong(spec: &OptionSpec, table: &SpannedTable, entry: &Entry) -> Mistake {
    let near = match &entry.node.value {
        Value::Text(text) => crate::keys::mistake::nearest(text, spec.choices.iter().map(String::as_str)),
        _ => None,
    };
    let remedy = match near {
        Some(name) => format!("; did you mean \"{name}\"?"),
        None if spec.default.is_null() => String::new(),
        None => format!("; for example {} = {}", spec.name, canonical(spec, &spec.default)),
    };
    let message = format!("expected {}, found {}{remedy}", expected(spec), entry.node.found());
    Mistake::new(entry.node.place.clone(), join(&table.key, &entry.key), message)
}

/// Returns the value in the form that the plugin receives; `None` if it has another type or is out of range.
fn value(spec: &OptionSpec, node: &Node) -> Option<Json> {
    let element = match spec.kind.strip_suffix(" list") {
        Some(element) => element,
        None => return scalar(spec, &spec.kind, node),
    };
    match &node.value {
        Value::List(items) => {
            items.iter().map(|item| scalar(spec, element, item)).collect::<Option<Vec<_>>>().map(Json::Array)
        }
        _ => None,
    }
}

fn scalar(spec: &OptionSpec, kind: &str, node: &Node) -> Option<Json> {
    let in_range = |number: f64| {
        number.is_finite() && spec.min.is_none_or(|min| number >= min) && spec.max.is_none_or(|max| number <= max)
    };
    match (kind, &node.value) {
        ("bool", Value::Bool(flag)) => Some(Json::from(*flag)),
        ("int", Value::Int(number)) => in_range(*number as f64).then(|| Json::from(*number)),
        ("float", Value::Int(number)) => in_range(*number as f64).then(|| Json::from(*number as f64)),
        ("float", Value::Float(number)) => in_range(*number).then(|| Json::from(*number)),
        ("string", Value::Text(text)) => {
            (spec.choices.is_empty() || spec.choices.contains(text)).then(|| Json::from(text.as_str()))
        }
        _ => None,
    }
}

/// Converts a default to the form of a written value: floats as floats.
fn canonical(spec: &OptionSpec, value: &Json) -> Json {
    match value {
        Json::Number(number) if spec.kind.starts_with("float") => {
            number.as_f64().map_or_else(|| value.clone(), Json::from)
        }
        Json::Array(items) => items.iter().map(|item| canonical(spec, item)).collect(),
        other => other.clone(),
    }
}

fn expected(spec: &OptionSpec) -> String {
    let choices: Vec<&str> = spec.choices.iter().map(String::as_str).collect();
    let range = match (spec.min, spec.max) {
        (None, None) => String::new(),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
    };
    let one = |kind: &str| match kind {
        "bool" => "true or false".to_owned(),
        "int" => format!("an integer{range}"),
        "float" => format!("a number{range}"),
        "string" if choices.is_empty() => "a string".to_owned(),
        "string" => crate::keys::form::quoted(&choices),
        other => format!("a value of kind \"{other}\", which this version of telos does not support"),
    };
    match spec.kind.strip_suffix(" list") {
        Some("float") => {
            format!("a list of numbers{}", range.replace(" of ", ", each ").replace(" from", ", each from"))
        }
        Some("string") => "a list of strings".to_owned(),
        Some(element) => format!("a list, each {}", one(element)),
        None => one(&spec.kind),
    }
}
