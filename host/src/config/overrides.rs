//! Values given on the command line, and how they are merged into an experiment's tree.

use std::fmt;
use std::sync::Arc;

use toml::de::DeValue;

use super::file::LARGEST;
use crate::keys::mistake::{Mistake, Place};
use crate::keys::tree::{Entry, Node, Table, Value, from_value, join};

/// The most names in a dotted path; the schema needs four, and a stage two more.
const DEEPEST: usize = 32;

/// A value given on the command line that overrides the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    label: Arc<str>,
    path: String,
    value: String,
    is_text: bool,
}

impl Override {
    /// Parses `a.b=c`, as given to `--set`. The value is TOML; a value that is not TOML is a string.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::of("--set", "key.path", text)
    }

    /// Parses `k=v`, as given to `--option`: an option of a plugin used without an experiment.
    pub fn option(text: &str) -> Result<Self, String> {
        Self::of("--option", "key", text)
    }

    /// The key and value as they were given: `key=value`.
    pub fn written(&self) -> String {
        format!("{}={}", self.path, self.value)
    }

    /// Parses `key=value` after `flag`; `form` describes the expected form for messages.
    fn of(flag: &str, form: &str, text: &str) -> Result<Self, String> {
        let Some((path, value)) = text.split_once('=') else {
            return Err(format!("`{text}` has no `=`; write {flag} {form}=value"));
        };
        let (path, value) = (path.trim(), value.trim());
        if path.split('.').any(str::is_empty) {
            return Err(format!("`{path}` is not a key; write {flag} {form}=value"));
        }
        let depth = path.matches('.').count() + 1;
        if depth > DEEPEST {
            return Err(format!("the key is {depth} tables deep; at most {DEEPEST} are allowed"));
        }
        if value.len() > LARGEST {
            let (bytes, most) = (value.len(), LARGEST);
            return Err(format!("the value of `{path}` has {bytes} bytes; at most {most} are allowed"));
        }
        if value.is_empty() {
            return Err(format!("`{path}` has no value; write {flag} {path}=value"));
        }
        let label = format!("{flag} {path}").into();
        Ok(Self { label, path: path.to_owned(), value: value.to_owned(), is_text: false })
    }

    /// For an option that sets one string key, such as `--name`.
    pub fn text(label: &str, path: &str, value: &str) -> Self {
        Self { label: label.into(), path: path.to_owned(), value: value.to_owned(), is_text: true }
    }

    /// For an option that sets one key of any type; its value is read as in [`Override::parse`].
    pub fn value(label: &str, path: &str, value: &str) -> Self {
        Self { is_text: false, ..Self::text(label, path, value) }
    }

    /// The key it names, as a dotted path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same value for another key; a mistake in it is still reported with what the user typed.
    pub fn at(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// Its place, as the `index`th of its kind.
    pub fn place(&self, index: usize) -> Place {
        Place::Override { index, label: self.label.clone() }
    }

    fn node(&self, place: &Place) -> Result<Node, String> {
        let text = || Node { value: Value::Text(self.value.clone()), place: place.clone() };
        if self.is_text {
            return Ok(text());
        }
        match DeValue::parse(&self.value) {
            Ok(value) => Ok(from_value(value.get_ref(), place.clone(), &|_| place.clone())),
            // A bare word or a path is a string; an unclosed bracket or quote is a mistake.
            Err(error) if self.value.starts_with(['[', '{', '"', '\'']) => Err(error.message().to_owned()),
            Err(_) => Ok(text()),
        }
    }
}

/// As it is given to `--set`.
impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.path, self.value)
    }
}

/// Merges `over`, the `index`th of its kind, into `root`. A path may name tables that do not exist yet; the schema
/// check follows. Where the schema allows a single table or a list, both can be addressed either way: a list of one
/// without its number, a single table with the number 0.
pub fn apply_override(root: &mut Node, index: usize, over: &Override) -> Result<(), Mistake> {
    let place = over.place(index);
    let refuse = |message: String| Mistake::new(place.clone(), over.path.clone(), message);
    let new = over.node(&place).map_err(refuse)?;
    set(root, &over.path, new).map_err(refuse)
}

/// Sets the key at the dotted `path` to a value; tables that do not exist are created at the value's place.
///
/// # Errors
/// What is in the way.
pub fn set(root: &mut Node, path: &str, new: Node) -> Result<(), String> {
    let (mut at, mut done) = (root, String::new());
    for part in path.split('.') {
        at = step_into(at, part, &done, &new.place)?;
        done = join(&done, part);
    }
    *at = new;
    Ok(())
}

/// Returns the child `part` of `node`, which is at the path `done`; creates it empty if it does not exist.
fn step_into<'a>(node: &'a mut Node, part: &str, done: &str, place: &Place) -> Result<&'a mut Node, String> {
    let found = node.found();
    let number = part.parse::<usize>().ok();
    if let (Value::Table(_), Some(number), false) = (&node.value, number, done.is_empty()) {
        let message = format!("`{done}` is a single table; leave the number out");
        return if number == 0 { Ok(node) } else { Err(message) };
    }
    match (&mut node.value, number) {
        (Value::Table(table), _) => Ok(child(table, part, place)),
        (Value::List(items), Some(index)) => {
            let count = items.len();
            items.get_mut(index).ok_or_else(|| format!("`{done}` has {count} entries, counted from 0"))
        }
        (Value::List(items), None) => match items.as_mut_slice() {
            [Node { value: Value::Table(table), .. }] => Ok(child(table, part, place)),
            _ => Err(format!("`{done}` is {found}; name an element by number, as in {done}.0")),
        },
        _ => Err(format!("`{done}` is {found}, which has no key `{part}`")),
    }
}

fn child<'a>(table: &'a mut Table, key: &str, place: &Place) -> &'a mut Node {
    let known = table.0.iter().position(|entry| entry.key == key);
    let index = known.unwrap_or_else(|| {
        let node = Node { value: Value::Table(Table::default()), place: place.clone() };
        table.0.push(Entry { key: key.to_owned(), node });
        table.0.len() - 1
    });
    &mut table.0[index].node
}
