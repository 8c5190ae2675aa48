//! What differs between two receipts.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Receipt;
use crate::data::rows::RowCounts;

/// What differs between two receipts and may change the result: one line each, such as `plugins[ce].sha256: "aa" is
/// now "bb"`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Of programs: the host, the plugins and the backend's settings.
    pub programs: Vec<String>,
    /// Of everything else: the inputs.
    pub inputs: Vec<String>,
}

impl Receipt {
    /// Returns what differs from `earlier`. The command line may differ. What an older receipt does not record is
    /// not compared. A resume with any such difference is not exact.
    pub fn changes_since(&self, earlier: &Self) -> Changes {
        let (mut changes, mut lines) = (Changes::default(), Vec::new());
        let mut now = self.clone();
        // The same weights at another path are the same model.
        let roles = now.roles.iter_mut().filter_map(|(role, own)| Some((own, earlier.roles.get(role)?)));
        for (own, then) in roles.chain([(&mut now.model, &earlier.model)]) {
            if own.sha256.is_some() && own.sha256 == then.sha256 {
                own.from.clone_from(&then.from);
            }
        }
        compare("", &earlier.comparable(earlier), &now.comparable(earlier), &mut lines);
        for line in lines {
            let program = ["telos.", "plugins[", "backend."].iter().any(|start| line.starts_with(start));
            if program { changes.programs.push(line) } else { changes.inputs.push(line) }
        }
        changes
    }

    /// The part of this receipt that is compared, either with `earlier` or as `earlier`: without the fields
    /// that `earlier` does not record.
    fn comparable(&self, earlier: &Self) -> Value {
        fn only_if<T, U>(known: Option<&U>, value: &mut Option<T>) {
            value.take_if(|_| known.is_none());
        }
        let mut own = self.clone();
        own.rows = own.rows.map(RowCounts::without_notes);
        (own.command, own.replaced, own.changed, own.unpinned, own.unproved) = Default::default();
        only_if(earlier.backend.instruction_set.as_ref(), &mut own.backend.instruction_set);
        if !(self.backend.threads_matter && earlier.backend.threads_matter) {
            (own.backend.threads, own.backend.threads_matter) = Default::default();
        }
        for plugin in &mut own.plugins {
            let then = earlier.plugins.iter().find(|then| (&then.kind, &then.id) == (&plugin.kind, &plugin.id));
            only_if(then.and_then(|then| then.libraries.as_ref()), &mut plugin.libraries);
        }
        only_if(earlier.tokenizer_files.as_ref(), &mut own.tokenizer_files);
        only_if(earlier.model.files.as_ref(), &mut own.model.files);
        for (role, source) in &mut own.roles {
            let then = earlier.roles.get(role);
            only_if(then.and_then(|then| then.files.as_ref()), &mut source.files);
            only_if(then.and_then(|then| then.base_sha256.as_ref()), &mut source.base_sha256);
        }
        // Older receipts do not record the bases of adapters. A name that was added to the experiment is a change of the experiment.
        own.hub.retain(|name, _| earlier.hub.contains_key(name));
        serde_json::to_value(own).unwrap_or_default()
    }
}

/// Collects the leaves in which two JSON values differ.
fn compare(at: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(added) {
                let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&below(key), &value(a), &value(b), lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if let (Some(a), Some(b)) = (by_name(a), by_name(b)) => {
            for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                let value = |map: &BTreeMap<&str, &Value>| map.get(name).map_or(Value::Null, |value| (*value).clone());
                compare(&format!("{at}[{name}]"), &value(&a), &value(&b), lines);
            }
            let order = |list: &BTreeMap<&str, &Value>, of: &Value| -> Vec<String> {
                let names = of.as_array().into_iter().flatten().filter_map(name);
                names.filter(|name| list.contains_key(name)).map(str::to_owned).collect()
            };
            let (then, now) = (order(&b, old), order(&a, new));
            if then != now {
                lines.push(format!("{at}: the order {} is now {}", then.join(", "), now.join(", ")));
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for index in 0..a.len().max(b.len()) {
                let name = a.get(index).or(b.get(index)).and_then(name).map_or(index.to_string(), str::to_owned);
                let value = |list: &[Value]| list.get(index).cloned().unwrap_or_default();
                compare(&format!("{at}[{name}]"), &value(a), &value(b), lines);
            }
        }
        _ if old == new => {}
        _ => lines.push(format!("{at}: {old} is now {new}")),
    }
}

/// The entries by name; `None` if one has no name, or two have the same.
fn by_name(list: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let named: BTreeMap<&str, &Value> = list.iter().filter_map(|entry| Some((name(entry)?, entry))).collect();
    (named.len() == list.len()).then_some(named)
}

/// The name of a plugin, a file or a library.
fn name(entry: &Value) -> Option<&str> {
    entry.get("id").or(entry.get("path")).or(entry.get("name"))?.as_str()
}
