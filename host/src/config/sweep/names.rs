//! Names of runs that are made of their values: `loss=ipo,beta=0.05,seed=2`.

use super::draws::Assignment;
use crate::keys::tree::{Node, Value};

/// The most characters of a value in a name, and of a name; a folder's name has at most 255 bytes.
const LONGEST_VALUE: usize = 32;
const LONGEST: usize = 160;

/// Names of combinations, all different, also where case is ignored; of few characters, all of which may be in a folder's name.
pub fn names(rows: &[Vec<Assignment>]) -> Vec<String> {
    let mut keys: Vec<&str> = rows.iter().flatten().map(|one| one.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut names: Vec<String> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let part = |one: &Assignment| format!("{}={}", short_key(&one.key, &keys), text(&one.node));
        let name = match row.is_empty() {
            true => "default".to_owned(),
            false => row.iter().map(part).collect::<Vec<_>>().join(","),
        };
        let taken = names.iter().any(|other| other.eq_ignore_ascii_case(&name));
        names.push(if taken || name.len() > LONGEST {
            let kept: String = name.chars().take(LONGEST - 16).collect();
            format!("{},arm={at}", kept.trim_end_matches([',', '=', '.']))
        } else {
            name
        });
    }
    names
}

/// The end of a key that tells it from the other keys: `beta`, or `0.beta` if there is a `1.beta`.
pub fn short_key<'a>(key: &'a str, keys: &[&str]) -> &'a str {
    let ends = |end: &str| keys.iter().filter(|other| **other == end || other.ends_with(&format!(".{end}"))).count();
    let starts = key.rmatch_indices('.').map(|(at, _)| at + 1);
    let mut candidates = starts.map(|at| &key[at..]);
    candidates.find(|end| ends(end) == 1 && end.parse::<usize>().is_err()).unwrap_or(key)
}

/// A value in characters that a shell does not interpret.
fn text(node: &Node) -> String {
    let written: String = whole(node).chars().take(LONGEST_VALUE).collect();
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+') { c } else { '_' };
    let safe: String = written.chars().map(safe).collect();
    if safe.is_empty() { "empty".to_owned() } else { safe }
}

fn whole(node: &Node) -> String {
    let joined = |parts: Vec<String>| parts.join("_");
    match &node.value {
        Value::Text(text) | Value::Date(text) => text.trim_matches('/').to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => {
            let (plain, exponent) = (format!("{number}"), format!("{number:e}"));
            if plain.len() <= exponent.len() + 2 { plain } else { exponent }
        }
        Value::Bool(flag) => flag.to_string(),
        Value::List(items) => joined(items.iter().map(whole).collect()),
        Value::Table(table) => joined(table.0.iter().map(|entry| whole(&entry.node)).collect()),
    }
}
