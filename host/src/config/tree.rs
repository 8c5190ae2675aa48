//! An experiment as a tree of values that know where they were written: the parsed file with the overrides laid over it.
//!
//! Knows TOML and nothing of the keys' meaning; [`super::schema`] holds that.

use std::sync::Arc;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistake, Place};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it was written: a table's name, or any other value's first character.
    pub place: Place,
}

/// A TOML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer.
    Int(i64),
    /// A finite or infinite floating-point number, or NaN.
    Float(f64),
    /// true or false.
    Bool(bool),
    /// A date or time, which no key takes; kept as text to be named in the refusal.
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
    /// Where the key was written.
    pub place: Place,
    /// What it holds.
    pub node: Node,
}

impl Table {
    /// The entry of `key`.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    fn index(&self, key: &str) -> Option<usize> {
        self.0.iter().position(|entry| entry.key == key)
    }
}

impl Node {
    /// What was found, for "expected ..., found ...": type and value, shortened.
    pub fn found(&self) -> String {
        match &self.value {
            Value::Text(text) if text.chars().count() > 40 => {
                format!(
                    "the string \"{}...\"",
                    text.chars().take(40).collect::<String>().escape_debug()
                )
            }
            Value::Text(text) => format!("the string \"{}\"", text.escape_debug()),
            Value::Int(number) => format!("the integer {number}"),
            Value::Float(number) => format!("the number {number:?}"),
            Value::Bool(flag) => format!("`{flag}`"),
            Value::Date(text) => format!("the date {text} (quote it to make it a string)"),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Table(_) => "a table".to_owned(),
        }
    }

    /// The value as JSON, as far as JSON can hold it (NaN and infinities become null; they are refused earlier).
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Text(text) | Value::Date(text) => Json::from(text.as_str()),
            Value::Int(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Bool(flag) => Json::from(*flag),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Table(table) => table
                .0
                .iter()
                .map(|entry| (entry.key.clone(), entry.node.to_json()))
                .collect(),
        }
    }

    /// The node at a dotted path (list elements by number), with the place of its key.
    pub fn find(&self, path: &str) -> Option<(&Place, &Node)> {
        let mut at = (&self.place, self);
        for part in path.split('.').filter(|part| !part.is_empty()) {
            at = match &at.1.value {
                Value::Table(table) => table.get(part).map(|entry| (&entry.place, &entry.node))?,
                Value::List(items) => {
                    let item = items.get(part.parse::<usize>().ok()?)?;
                    (&item.place, item)
                }
                _ => return None,
            };
        }
        Some(at)
    }
}

/// Reads `text` of `file`. All faults of the TOML itself are reported together; a tree with holes is not returned.
pub fn parse(file: &Arc<str>, text: &str) -> Result<Node, Vec<Mistake>> {
    let source = Source { file, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut mistakes: Vec<Mistake> = errors
        .iter()
        .map(|error| {
            Mistake::new(
                source.place(error.span().map_or(text.len(), |span| span.start)),
                "",
                error.message(),
            )
        })
        .collect();
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let node = source.table(table.get_ref(), Place::File(file.clone()), &mut mistakes);
    if mistakes.is_empty() {
        Ok(node)
    } else {
        Err(mistakes)
    }
}

struct Source<'a> {
    file: &'a Arc<str>,
    text: &'a str,
}

impl Source<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::At {
            file: self.file.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    fn table(&self, table: &DeTable<'_>, place: Place, mistakes: &mut Vec<Mistake>) -> Node {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| {
                let place = self.place(key.span().start);
                let node = self.node(value, &place, mistakes);
                Entry {
                    key: key.get_ref().to_string(),
                    place,
                    node,
                }
            })
            .collect();
        entries.sort_by(|a, b| a.place.cmp(&b.place));
        Node {
            value: Value::Table(Table(entries)),
            place,
        }
    }

    fn node(
        &self,
        spanned: &Spanned<DeValue<'_>>,
        key: &Place,
        mistakes: &mut Vec<Mistake>,
    ) -> Node {
        let place = self.place(spanned.span().start);
        let value = match spanned.get_ref() {
            DeValue::Table(table) => return self.table(table, key.clone(), mistakes),
            DeValue::Array(items) => {
                let node = |item: &Spanned<DeValue<'_>>| {
                    self.node(item, &self.place(item.span().start), mistakes)
                };
                Value::List(items.iter().map(node).collect())
            }
            other => scalar(other).unwrap_or_else(|message| {
                mistakes.push(Mistake::new(place.clone(), "", message));
                Value::Bool(false)
            }),
        };
        Node { value, place }
    }
}

fn scalar(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Value::Int(parsed.map_err(|_| format!("{number} does not fit in 64 bits with sign"))?)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse();
            Value::Float(parsed.map_err(|_| format!("{} is no number", number.as_str()))?)
        }
        // `node` takes lists and tables before it asks for a scalar.
        DeValue::Array(_) | DeValue::Table(_) => {
            return Err("a list or table inside a scalar".to_owned());
        }
    })
}

/// A value given on the command line, to be laid over the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    label: Arc<str>,
    path: String,
    value: String,
    is_text: bool,
}

impl Override {
    /// From `a.b=c`, as `--set` takes it. The value is TOML; what is no TOML is a string.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((path, value)) = text.split_once('=') else {
            return Err(format!("`{text}` has no `=`; write --set key.path=value"));
        };
        let (path, value) = (path.trim(), value.trim());
        if path.is_empty() || path.split('.').any(str::is_empty) {
            return Err(format!("`{path}` is no key; write --set key.path=value"));
        }
        if value.is_empty() {
            return Err(format!(
                "`{path}` has no value; write \"\" for an empty string"
            ));
        }
        let label = format!("--set {path}").into();
        Ok(Self {
            label,
            path: path.to_owned(),
            value: value.to_owned(),
            is_text: false,
        })
    }

    /// From an option that stands for one string key, such as `--name`.
    pub fn text(label: &str, path: &str, value: &str) -> Self {
        Self {
            label: label.into(),
            path: path.to_owned(),
            value: value.to_owned(),
            is_text: true,
        }
    }

    fn node(&self, place: &Place) -> Result<Node, Mistake> {
        let text = || Node {
            value: Value::Text(self.value.clone()),
            place: place.clone(),
        };
        if self.is_text {
            return Ok(text());
        }
        let refuse = |message: String| Mistake::new(place.clone(), self.path.clone(), message);
        match DeValue::parse(&self.value) {
            Ok(value) => convert(value.get_ref(), place).map_err(refuse),
            // A bare word or a path is a string; an open bracket or quote is a slip.
            Err(error) if self.value.starts_with(['[', '{', '"', '\'']) => {
                Err(refuse(error.message().to_owned()))
            }
            Err(_) => Ok(text()),
        }
    }
}

fn convert(value: &DeValue<'_>, place: &Place) -> Result<Node, String> {
    let value = match value {
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| convert(item.get_ref(), place))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Ok(Entry {
                    key: key.to_string(),
                    place: place.clone(),
                    node: convert(value.get_ref(), place)?,
                })
            };
            Value::Table(Table(
                table.iter().map(entry).collect::<Result<_, String>>()?,
            ))
        }
        other => scalar(other)?,
    };
    Ok(Node {
        value,
        place: place.clone(),
    })
}

/// Lays `over` over `root`. A path may name tables that do not exist yet; the schema judges the names afterwards.
/// A list of exactly one table may be addressed without its number.
pub fn lay_over(root: &mut Node, index: usize, over: &Override) -> Result<(), Mistake> {
    let place = Place::Override {
        index,
        label: over.label.clone(),
    };
    let new = over.node(&place)?;
    let mut at = root;
    let mut done = String::new();
    for part in over.path.split('.') {
        let parent = done.clone();
        done = if done.is_empty() {
            part.to_owned()
        } else {
            format!("{done}.{part}")
        };
        let refuse = |message: String| Mistake::new(place.clone(), over.path.clone(), message);
        at = step_into(at, part, &parent, &place).map_err(refuse)?;
    }
    *at = new;
    Ok(())
}

/// The child `part` of `node`, created empty where a table has none yet.
fn step_into<'a>(
    node: &'a mut Node,
    part: &str,
    parent: &str,
    place: &Place,
) -> Result<&'a mut Node, String> {
    let found = node.found();
    match &mut node.value {
        Value::Table(table) => {
            let index = table.index(part).unwrap_or_else(|| {
                let node = Node {
                    value: Value::Table(Table::default()),
                    place: place.clone(),
                };
                table.0.push(Entry {
                    key: part.to_owned(),
                    place: place.clone(),
                    node,
                });
                table.0.len() - 1
            });
            Ok(&mut table.0[index].node)
        }
        Value::List(items) => match part.parse::<usize>() {
            Ok(index) => {
                let count = items.len();
                items
                    .get_mut(index)
                    .ok_or_else(|| format!("`{parent}` has {count} entries, counted from 0"))
            }
            Err(_) => match items.as_mut_slice() {
                [only] if matches!(only.value, Value::Table(_)) => {
                    step_into(only, part, parent, place)
                }
                _ => Err(format!(
                    "`{parent}` is {found}; name one by number, as in {parent}.0.{part}"
                )),
            },
        },
        _ => Err(format!("`{parent}` is {found}, which has no key `{part}`")),
    }
}
