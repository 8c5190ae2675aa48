//! The names of columns: those that have a meaning here, and those that files use for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};

/// The file's names for the columns that have a meaning here: `prompt` = "question". If the file also has its own
/// column of the meaningful name, that column is kept under the name with [`ORIGINAL`] before it.
pub type Columns = BTreeMap<String, String>;

/// Begins the name of a file's own column whose name another column was given.
const ORIGINAL: &str = "original_";

/// Where a user says how columns are called and read, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// A table of an experiment, such as "data.columns".
    Table(String),
    /// `--column` of a command, and `--format` if it has that too.
    Flag {
        /// Whether it has `--format`.
        has_format: bool,
    },
    /// Nothing: the columns of the file have their usual names.
    File,
}

impl NamedBy {
    /// The key or flag that gives this column its name.
    pub fn key(&self, column: &str) -> String {
        match self {
            NamedBy::Table(table) => format!("{table}.{column}"),
            NamedBy::Flag { .. } => format!("--column {column}"),
            NamedBy::File => column.to_owned(),
        }
    }

    /// How these columns, each with its name in the file, are renamed; without any, how columns are renamed.
    pub fn rename(&self, names: &[(&str, &str)]) -> String {
        let all = |one: fn(&(&str, &str)) -> String, between: &str| {
            names.iter().map(one).collect::<Vec<String>>().join(between)
        };
        let (how, which) = match self {
            NamedBy::Table(table) => {
                let names = all(|(key, name)| format!("{key} = \"{name}\""), ", ");
                (format!("{table} renames columns"), format!("{table} = {{ {names} }}"))
            }
            NamedBy::Flag { .. } => {
                let names = all(|(key, name)| format!("--column {key}={name}"), " ");
                ("--column KEY=NAME renames columns".to_owned(), names)
            }
            NamedBy::File => {
                let names = all(|(key, name)| format!("`{name}` to `{key}`"), ", ");
                ("rename the columns in the file".to_owned(), names)
            }
        };
        if names.is_empty() { how } else { format!("{how}: {which}") }
    }

    /// The key or flag that decides between formats, with their names; `None` if there is none.
    pub fn format(&self, names: &[&str]) -> Option<String> {
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        match self {
            NamedBy::Table(table) => {
                let of_source = table.strip_suffix("columns").unwrap_or("data.");
                Some(format!("{of_source}format = {}", quoted.join(" or ")))
            }
            NamedBy::Flag { has_format: true } => Some(format!("--format {}", names.join(" or "))),
            NamedBy::Flag { has_format: false } | NamedBy::File => None,
        }
    }
}

/// Which of the experiment's names of columns rows have.
#[derive(Debug, Default)]
pub struct Found(Vec<AtomicBool>);

impl Found {
    /// No row was read yet.
    pub fn none(names: &Columns) -> Found {
        Found(names.iter().map(|_| AtomicBool::new(false)).collect())
    }

    /// Whether a row has the column that stands for `key` in `names`.
    pub fn has(&self, names: &Columns, key: &str) -> bool {
        let index = names.keys().position(|own| own == key);
        index.and_then(|index| self.0.get(index)).is_some_and(|found| found.load(Ordering::Relaxed))
    }
}

/// Renames all at once, so that two columns can swap names, and notes in `found` which of them the row has.
pub fn rename(columns: &mut Map<String, Value>, names: &Columns, found: &Found) {
    let values: Vec<Option<Value>> = names.values().map(|written| columns.shift_remove(written)).collect();
    for ((name, value), found) in names.keys().zip(values).zip(&found.0) {
        if let Some(own) = columns.shift_remove(name).filter(|own| !own.is_null()) {
            let mut kept = format!("{ORIGINAL}{name}");
            while columns.contains_key(&kept) {
                kept.insert_str(0, ORIGINAL);
            }
            columns.insert(kept, own);
        }
        if let Some(value) = value {
            found.store(true, Ordering::Relaxed);
            columns.insert(name.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Catches a column of the file that is deleted because another one is given its name, columns that cannot swap their names,
    /// and a name that counts as found although no row has it.
    #[test]
    fn no_column_is_deleted() {
        let renamed = |names: &[(&str, &str)], row: Value| {
            let names: Columns = names.iter().map(|(key, name)| ((*key).to_owned(), (*name).to_owned())).collect();
            let (found, mut columns) = (Found::none(&names), row.as_object().unwrap().clone());
            rename(&mut columns, &names, &found);
            let has: Vec<bool> = names.keys().map(|key| found.has(&names, key)).collect();
            (Value::Object(columns), has)
        };
        let own = json!({"question": "a", "prompt": "b", "original_prompt": "c"});
        let expected = json!({"prompt": "a", "original_original_prompt": "b", "original_prompt": "c"});
        assert_eq!(renamed(&[("prompt", "question")], own), (expected, vec![true]));
        let swapped = renamed(&[("chosen", "rejected"), ("rejected", "chosen")], json!({"chosen": 1, "rejected": 2}));
        assert_eq!(swapped, (json!({"chosen": 2, "rejected": 1}), vec![true, true]));
        let missing = renamed(&[("prompt", "qeustion")], json!({"prompt": null, "question": 1}));
        assert_eq!(missing, (json!({"question": 1}), vec![false]));
    }
}
