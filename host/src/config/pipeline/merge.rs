//! Separates a pipeline's shared keys from its stage tables, and merges both into one tree per stage.

use crate::config::draft::STAGE;
use crate::keys::mistake::{Mistake, Place};
use crate::keys::tree::{Node, Table, Value, join};

/// Returns the keys above the stages, and the stages' tables.
pub fn split(mut root: Node, mistakes: &mut Vec<Mistake>) -> (Node, Vec<Node>) {
    let stages = take(&mut root, STAGE);
    let mut wrong = |node: &Node| {
        let message = format!("expected at least one [[stage]] table, found {}", node.found());
        mistakes.push(Mistake::new(node.place.clone(), STAGE, message));
    };
    let tables = match stages {
        Some(Node { value: Value::List(items), .. }) if !items.is_empty() => {
            let is_table = |node: &Node| matches!(node.value, Value::Table(_));
            items.iter().filter(|node| !is_table(node)).for_each(&mut wrong);
            items.into_iter().filter(is_table).collect()
        }
        Some(other) => {
            wrong(&other);
            Vec::new()
        }
        None => Vec::new(),
    };
    (root, tables)
}

/// Removes `key` from a table and returns its value.
pub fn take(node: &mut Node, key: &str) -> Option<Node> {
    let Value::Table(table) = &mut node.value else { return None };
    let index = table.0.iter().position(|entry| entry.key == key)?;
    Some(table.0.remove(index).node)
}

/// Returns `base` with `over` merged in: tables key by key, any other value replaced.
pub fn merged(base: &Node, over: Node) -> Node {
    let (Value::Table(below), Value::Table(above)) = (&base.value, &over.value) else { return over };
    let mut entries = below.0.clone();
    for new in &above.0 {
        match entries.iter_mut().find(|entry| entry.key == new.key) {
            Some(entry) => entry.node = merged(&entry.node, new.node.clone()),
            None => entries.push(new.clone()),
        }
    }
    Node { value: Value::Table(Table(entries)), place: over.place }
}

/// Keys and places of all values that are not tables.
pub fn leaves_of(node: &Node, path: &str, leaves: &mut Vec<(String, Place)>) {
    match &node.value {
        Value::Table(table) => table.0.iter().for_each(|entry| leaves_of(&entry.node, &join(path, &entry.key), leaves)),
        _ => leaves.push((path.to_owned(), node.place.clone())),
    }
}

/// Calls `each` with the key, the text and the place of every string.
pub fn each_text(node: &mut Node, path: &str, each: &mut impl FnMut(&str, &mut String, &Place)) {
    match &mut node.value {
        Value::Text(text) => each(path, text, &node.place),
        Value::Table(table) => {
            table.0.iter_mut().for_each(|entry| each_text(&mut entry.node, &join(path, &entry.key), each));
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                each_text(item, &join(path, &index.to_string()), each);
            }
        }
        _ => {}
    }
}
