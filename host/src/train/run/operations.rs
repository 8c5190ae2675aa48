//! The time of operations, summed over several steps before it is written: a line for each step would make timing.jsonl three times
//! as long.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::device::operation_times::OperationTime;

/// Steps whose times are in one line of timing.jsonl; the last line of a run may have fewer.
const STEPS: u64 = 10;

/// The operations of the steps since the last line.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MeasuredSteps {
    /// How many steps.
    steps: u64,
    /// Their seconds, those outside of operations included.
    step_seconds: f64,
    /// Calls and seconds by operation.
    operations: BTreeMap<&'static str, Measured>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Measured {
    calls: u64,
    nanoseconds: u64,
}

impl Serialize for Measured {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2))?;
        map.serialize_entry("calls", &self.calls)?;
        map.serialize_entry("seconds", &(self.nanoseconds as f64 / 1e9))?;
        map.end()
    }
}

impl MeasuredSteps {
    /// Adds a step that took `seconds`. Nothing is added if its operations were not measured.
    pub fn add(&mut self, seconds: f64, operations: &[OperationTime]) {
        if operations.is_empty() {
            return;
        }
        self.steps += 1;
        self.step_seconds += seconds;
        for one in operations {
            let own = self.operations.entry(one.name).or_default();
            own.calls += one.calls;
            own.nanoseconds += one.nanoseconds;
        }
    }

    /// Returns and resets the sums, if they cover 10 steps or, at the `end`, at least one.
    pub fn take_due(&mut self, end: bool) -> Option<MeasuredSteps> {
        let is_due = self.steps >= STEPS || (end && self.steps > 0);
        is_due.then(|| std::mem::take(self))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Catches a line that loses a step or an operation, one in every step, and the steps of a short run that are never written.
    #[test]
    fn steps_are_summed_until_a_line_is_due() {
        let mut sums = MeasuredSteps::default();
        let linear = |nanoseconds| OperationTime { name: "linear", calls: 3, nanoseconds };
        assert_eq!(sums.take_due(true), None);
        for step in 1..=STEPS {
            assert_eq!(sums.take_due(false), None, "{step}");
            sums.add(0.5, &[linear(100_000_000)]);
            // Not measured: neither its time nor its operations.
            sums.add(9.0, &[]);
        }
        let line = sums.take_due(false).map(|due| serde_json::to_value(due).unwrap());
        let expected =
            json!({ "steps": 10, "step_seconds": 5.0, "operations": { "linear": { "calls": 30, "seconds": 1.0 } } });
        assert_eq!(line, Some(expected));
        sums.add(0.5, &[linear(1)]);
        assert!(sums.take_due(false).is_none() && sums.take_due(true).is_some_and(|rest| rest.steps == 1));
        assert_eq!(sums.take_due(true), None);
    }
}
