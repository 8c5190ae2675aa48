//! The alerts of a run, from the lines of kind `alert` in timing.jsonl.

use std::{
    io::{BufRead, BufReader},
    path::Path,
};

use serde_json::{Map, Value};

use crate::files;

/// An alert from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertSpan {
    /// Its rule.
    pub name: String,
    /// The metric.
    pub metric: String,
    /// The text with which it began.
    pub text: String,
    /// The step at which it ended; `None` while it is active.
    pub ended: Option<u64>,
}

impl AlertSpan {
    /// Adds the alert that `line` begins to `all`, or ends the one that it names.
    pub fn add(all: &mut Vec<AlertSpan>, line: &Map<String, Value>) {
        let word = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
        let alert = AlertSpan { name: word("name"), metric: word("metric"), text: word("text"), ended: None };
        let is_same = |own: &&mut AlertSpan| (&own.name, &own.metric, own.ended) == (&alert.name, &alert.metric, None);
        match word("state").as_str() {
            "begin" => all.push(alert),
            _ => all.iter_mut().filter(is_same).for_each(|own| own.ended = Some(step)),
        }
    }
}

/// The rules of the alerts that are active at the last line of the run in `folder`, each once. Of its log only the lines of alerts
/// are parsed, because a list of runs reads all their logs.
pub fn active_alerts(folder: &Path) -> Vec<String> {
    let Ok(file) = files::open(&folder.join("timing.jsonl")) else { return Vec::new() };
    let (mut reader, mut bytes, mut all) = (BufReader::new(file), Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
        let is_alert = bytes.windows(ALERT.len()).any(|part| part == ALERT);
        if let Some(line) = is_alert.then(|| serde_json::from_slice(&bytes).ok()).flatten() {
            AlertSpan::add(&mut all, &line);
        }
        bytes.clear();
    }
    let mut names = Vec::new();
    for alert in all.into_iter().filter(|alert| alert.ended.is_none()) {
        if !names.contains(&alert.name) {
            names.push(alert.name);
        }
    }
    names
}

/// What a line of an alert contains.
const ALERT: &[u8] = b"\"kind\":\"alert\"";
