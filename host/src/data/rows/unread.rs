//! Finds columns of rows that nothing reads, so that they are reported and not silently ignored.

use std::collections::BTreeSet;

use serde_json::Value;

use super::kind::{ANSWER, LABEL, RowKind};
use super::row::Row;
use super::text::{number, numbers};
use super::write::template::KWARGS;

/// Columns that have a meaning in every experiment.
const OWN: [&str; 2] = ["tools", KWARGS];

/// Columns of strings, lists or objects that are not in `read`, in alphabetical order. Columns of numbers and of lists of
/// numbers are not included, because they reach the objective.
pub fn unread(rows: &[&Row], kind: RowKind, read: &BTreeSet<String>) -> Vec<String> {
    let of_prompts = [ANSWER, "completion", "chosen"];
    let known = |name: &str| {
        read.contains(name) || OWN.contains(&name) || kind == RowKind::Prompt && of_prompts.contains(&name)
    };
    let lists: BTreeSet<&str> = names(rows, is_list_of_numbers).collect();
    names(rows, |value| matches!(value, Value::String(_) | Value::Array(_) | Value::Object(_)))
        .filter(|name| !known(name) && !lists.contains(name))
        .map(str::to_owned)
        .collect()
}

/// Scores that `telos pairs` adds to its pairs, for the user; no objective reads them.
const FOR_USERS: [&str; 2] = ["chosen_score", "rejected_score"];

/// Whether a value is a list of at least one number, and of nothing else.
fn is_list_of_numbers(value: &Value) -> bool {
    numbers(value).is_some_and(|list| !list.is_empty())
}

/// Columns of numbers, or true and false, or lists of them, that are not in `read` and for which `mentions` returns false, in
/// alphabetical order. They reach the objective, which need not use them.
pub fn undeclared(
    rows: &[&Row],
    kind: RowKind,
    read: &BTreeSet<String>,
    mentions: impl Fn(&str) -> bool,
) -> Vec<String> {
    let is_own = |name: &str| match name.strip_suffix("_ended") {
        Some(part) => kind.texts().iter().any(|end| end.name() == part),
        None => name == LABEL && kind == RowKind::Unpaired || kind == RowKind::Prompt && name == ANSWER,
    };
    let numeric = |value: &Value| value.is_boolean() || value.is_number() && number(value).is_some();
    names(rows, |value| numeric(value) || is_list_of_numbers(value))
        .filter(|name| !read.contains(*name) && !is_own(name) && !FOR_USERS.contains(name) && !mentions(name))
        .map(str::to_owned)
        .collect()
}

/// Columns with an integer that a 64-bit float cannot hold exactly.
pub fn inexact(rows: &[&Row]) -> Vec<String> {
    names(rows, |value| value.is_number() && number(value).is_none()).map(str::to_owned).collect()
}

fn names<'a, W: Fn(&Value) -> bool>(rows: &[&'a Row], wanted: W) -> impl Iterator<Item = &'a str> + use<'a, W> {
    let columns = rows.iter().flat_map(|row| &row.columns);
    let found: BTreeSet<&str> = columns.filter(|(_, value)| wanted(value)).map(|(name, _)| name.as_str()).collect();
    found.into_iter()
}
