//! The form check: walks the tree against [`super::schema::KEYS`] and collects unknown keys, wrong types and values
//! out of range; valid values are passed on, invalid ones are left out.
//!
//! Rules between keys are in [`super::tables`]; a plugin's own options are set aside for [`super::options`].

use std::ops::RangeBounds;

use serde_json::{Map, Value as Json};

use super::options::SpannedTable;
use super::schema;
use crate::keys::mistake::{Mistake, Place, nearest, suggestion};
use crate::keys::tree::{Entry, Node, Table, Value, join};
use crate::keys::{Form, Key};

/// The result of the form check.
#[derive(Debug, Default)]
pub struct Checked {
    /// The well-formed part, ready to become [`super::experiment::Written`].
    pub values: Map<String, Json>,
    /// The backend's options; `None` if there is no `[backend]`.
    pub backend: Option<SpannedTable>,
    /// Each objective's options, in order.
    pub objectives: Vec<SpannedTable>,
    /// Each reward's options, in order.
    pub rewards: Vec<SpannedTable>,
    /// All mistakes.
    pub mistakes: Vec<Mistake>,
}

/// Checks the whole tree.
pub fn check(root: &Node) -> Checked {
    let mut checked = Checked::default();
    if let Value::Table(table) = &root.value {
        let (values, _) = checked.table(table, "", "");
        checked.values = values;
    }
    checked
}

impl Checked {
    fn refuse(&mut self, place: &Place, key: &str, message: String) -> Option<Json> {
        self.mistakes.push(Mistake::new(place.clone(), key, message));
        None
    }

    /// Returns the known entries of a table, and the unknown ones. `path` is the path as the user wrote it,
    /// `schema` the one in the schema; they differ by list positions.
    fn table(&mut self, table: &Table, path: &str, schema: &str) -> (Map<String, Json>, Vec<Entry>) {
        let takes_options = matches!(schema::find(schema).map(|key| key.form), Some(Form::Plugin | Form::Plugins));
        let mut values = Map::new();
        let mut unknown = Vec::new();
        for entry in &table.0 {
            let path = join(path, &entry.key);
            match schema::find(&join(schema, &entry.key)) {
                Some(key) => {
                    if let Some(value) = self.value(key, &entry.node, &path) {
                        values.insert(entry.key.clone(), value);
                    }
                }
                None if takes_options => unknown.push(entry.clone()),
                None => self.unknown(entry, &path, schema),
            }
        }
        (values, unknown)
    }

    fn unknown(&mut self, entry: &Entry, path: &str, schema: &str) {
        let siblings = schema::children(schema);
        let elsewhere = schema::paths_of(&entry.key);
        let near = nearest(&entry.key, siblings.clone());
        // A sibling, with the position of its table in a list; the path of a key elsewhere has none.
        let parent = path.strip_suffix(&entry.key).map_or("", |parent| parent.trim_end_matches('.'));
        let meant = near.map(|name| join(parent, name)).or_else(|| elsewhere.first().map(|path| path.to_string()));
        let remedy = match (near, elsewhere.is_empty()) {
            (None, false) => {
                let names: Vec<String> = elsewhere.iter().map(|path| format!("`{path}`")).collect();
                format!("did you mean {}?", names.join(" or "))
            }
            _ => suggestion(&entry.key, siblings),
        };
        let message = format!("unknown key; {remedy}");
        self.mistakes.push(Mistake { meant, ..Mistake::new(entry.node.place.clone(), path, message) });
    }

    fn value(&mut self, key: &Key, node: &Node, path: &str) -> Option<Json> {
        match (key.form, &node.value) {
            (Form::Table, Value::Table(table)) => Some(Json::Object(self.table(table, path, key.path).0)),
            (Form::WordOrTable(_), Value::Table(table)) => Some(Json::Object(self.table(table, path, key.path).0)),
            (Form::WordOrTable(words), Value::Text(_)) => {
                let word = self.word(words, node, path)?;
                Some(Json::Object(Map::from_iter([("kind".to_owned(), word)])))
            }
            (Form::Plugin, Value::Table(table)) => {
                let (values, options) = self.table(table, path, key.path);
                self.backend = Some(SpannedTable::new(path, node.place.clone(), options, key.path));
                Some(Json::Object(values))
            }
            (Form::Plugins, Value::Table(table)) => Some(Json::Array(vec![self.plugin(table, &node.place, path, key)])),
            (Form::Plugins, Value::List(items)) if !items.is_empty() => {
                self.list(items, path, |checked, item, path| match &item.value {
                    Value::Table(table) => Some(checked.plugin(table, &item.place, path, key)),
                    _ => checked.wrong(key, "a table", item, path),
                })
            }
            (Form::Tables, Value::List(items)) => self.list(items, path, |checked, item, path| match &item.value {
                Value::Table(table) => Some(Json::Object(checked.table(table, path, key.path).0)),
                _ => checked.wrong(key, "a table", item, path),
            }),
            (Form::Word(words), Value::Text(_)) => self.word(words, node, path),
            (Form::Words(words), Value::List(items)) if !items.is_empty() => {
                self.list(items, path, |checked, item, path| checked.word(words, item, path))
            }
            (form, _) => match scalar(form, node) {
                Some(value) => Some(value),
                None => self.wrong(key, &form.expected(), node, path),
            },
        }
    }

    fn plugin(&mut self, table: &Table, place: &Place, path: &str, key: &Key) -> Json {
        let (values, options) = self.table(table, path, key.path);
        let all = if key.path == "reward" { &mut self.rewards } else { &mut self.objectives };
        all.push(SpannedTable::new(path, place.clone(), options, key.path));
        Json::Object(values)
    }

    /// Returns all elements and reports every wrong one; `None` if any is wrong.
    fn list(
        &mut self,
        items: &[Node],
        path: &str,
        mut each: impl FnMut(&mut Self, &Node, &str) -> Option<Json>,
    ) -> Option<Json> {
        let values: Vec<Option<Json>> =
            items.iter().enumerate().map(|(index, item)| each(self, item, &join(path, &index.to_string()))).collect();
        values.into_iter().collect::<Option<Vec<Json>>>().map(Json::Array)
    }

    fn word(&mut self, words: &[&str], node: &Node, path: &str) -> Option<Json> {
        match &node.value {
            Value::Text(text) if words.contains(&text.as_str()) => Some(Json::from(text.as_str())),
            Value::Text(text) => {
                let near = nearest(text, words.iter().copied());
                let remedy = near.map_or(String::new(), |name| format!("; did you mean \"{name}\"?"));
                let expected = crate::keys::form::quoted(words);
                self.refuse(&node.place, path, format!("expected {expected}, found {}{remedy}", node.found()))
            }
            _ => self.refuse(
                &node.place,
                path,
                format!("expected {}, found {}", crate::keys::form::quoted(words), node.found()),
            ),
        }
    }

    fn wrong(&mut self, key: &Key, expected: &str, node: &Node, path: &str) -> Option<Json> {
        let name = key.path.rsplit('.').next().unwrap_or(key.path);
        let message = format!("expected {expected}, found {}; for example {name} = {}", node.found(), key.example);
        self.refuse(&node.place, path, message)
    }
}

/// Returns the value of a form that has no keys below it; `None` if it has another form or is out of range.
fn scalar(form: Form, node: &Node) -> Option<Json> {
    match (form, &node.value) {
        (Form::Bool, Value::Bool(flag)) => Some(Json::from(*flag)),
        (Form::Int(min, max), Value::Int(number)) => (min..=max).contains(number).then(|| Json::from(*number)),
        (Form::Float(min, max), _) => {
            let number = number(node)?;
            (min, max).contains(&number).then(|| Json::from(number))
        }
        (Form::Text, Value::Text(text)) => (!text.is_empty()).then(|| Json::from(text.as_str())),
        (Form::Texts, Value::Text(text)) => (!text.is_empty()).then(|| Json::from(vec![text.as_str()])),
        (Form::Texts, Value::List(items)) if !items.is_empty() => {
            items.iter().map(|item| scalar(Form::Text, item)).collect::<Option<Vec<_>>>().map(Json::Array)
        }
        (Form::Ints(min, max), Value::List(items)) if !items.is_empty() => {
            items.iter().map(|item| scalar(Form::Int(min, max), item)).collect::<Option<Vec<_>>>().map(Json::Array)
        }
        (Form::Span, Value::Int(steps)) => (*steps >= 0).then(|| Json::from(*steps)),
        (Form::Span, Value::Float(part)) => (*part > 0.0 && *part < 1.0).then(|| Json::from(*part)),
        (Form::Betas, Value::List(items)) if items.len() == 2 => {
            let betas: Vec<f64> = items.iter().filter_map(number).filter(|beta| (0.0..1.0).contains(beta)).collect();
            (betas.len() == 2).then(|| Json::from(betas))
        }
        (Form::Lengths, Value::List(items)) if !items.is_empty() => {
            items.iter().map(pair).collect::<Option<Vec<_>>>().map(Json::Array)
        }
        _ => None,
    }
}

/// `[step, tokens]`.
fn pair(node: &Node) -> Option<Json> {
    let Value::List(items) = &node.value else {
        return None;
    };
    match items.iter().map(|item| &item.value).collect::<Vec<_>>()[..] {
        [Value::Int(step), Value::Int(tokens)] if *step >= 0 && *tokens > 0 => Some(Json::from(vec![*step, *tokens])),
        _ => None,
    }
}

/// A finite number, written as integer or as float.
fn number(node: &Node) -> Option<f64> {
    match node.value {
        Value::Int(number) => Some(number as f64),
        Value::Float(number) if number.is_finite() => Some(number),
        _ => None,
    }
}
