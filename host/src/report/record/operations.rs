//! Time by operation, from the lines of kind `operations` in timing.jsonl.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Calls and seconds of each operation, in the steps in which they were measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Operations {
    /// How many steps were measured.
    pub steps: u64,
    /// Seconds of these steps.
    pub seconds: f64,
    /// Calls and seconds by the operation's name.
    pub by_name: BTreeMap<String, (f64, f64)>,
}

impl Operations {
    /// Adds a line of timing.jsonl.
    pub fn add(&mut self, line: &Map<String, Value>) {
        let number = |key: &str| line.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        self.steps += number("steps") as u64;
        self.seconds += number("step_seconds");
        for (name, of) in line.get("operations").and_then(Value::as_object).into_iter().flatten() {
            let number = |key: &str| of.get(key).and_then(Value::as_f64).unwrap_or(0.0);
            let own = self.by_name.entry(name.clone()).or_default();
            *own = (own.0 + number("calls"), own.1 + number("seconds"));
        }
    }

    /// Seconds of the steps outside of operations.
    pub fn rest(&self) -> f64 {
        (self.seconds - self.by_name.values().map(|(_, seconds)| seconds).sum::<f64>()).max(0.0)
    }
}
