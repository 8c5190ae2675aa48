//! Counts of trials by outcome, as a table.

use std::{collections::BTreeMap, sync::Mutex};

use super::trial::Ending;

/// Counts by class.
#[derive(Default)]
pub struct Tally(Mutex<BTreeMap<String, Counts>>);

#[derive(Default, Clone, Copy)]
struct Counts {
    tried: u64,
    same: u64,
    left: u64,
    refused: u64,
    warned: u64,
    not_reached: u64,
    faults: u64,
}

impl Tally {
    /// Adds an ending to a class.
    pub fn add(&self, class: &str, ending: &Ending) {
        let mut all = self.0.lock().expect("no test panics with it");
        let counts = all.entry(class.to_owned()).or_default();
        match ending {
            Ending::NotReached => return counts.not_reached += 1,
            Ending::Same => counts.same += 1,
            Ending::SameAndLeft => counts.left += 1,
            Ending::Refused => counts.refused += 1,
            Ending::Warned => counts.warned += 1,
            Ending::Fault(_) => counts.faults += 1,
        }
        counts.tried += 1;
    }

    /// A table in Markdown with a row for each class and one for all.
    pub fn table(&self, first: &str) -> String {
        let all = self.0.lock().expect("no test panics with it");
        let mut text = format!(
            "| {first} | tried | same bits | same bits, something left over | refused by name | rebuilt with a message | faults | not reached |\n|---|---|---|---|---|---|---|---|\n"
        );
        let mut sum = Counts::default();
        let row = |name: &str, c: &Counts| {
            let Counts { tried, same, left, refused, warned, faults, not_reached } = c;
            format!("| {name} | {tried} | {same} | {left} | {refused} | {warned} | {faults} | {not_reached} |\n")
        };
        for (class, counts) in all.iter() {
            text.push_str(&row(class, counts));
            sum.tried += counts.tried;
            sum.same += counts.same;
            sum.left += counts.left;
            sum.refused += counts.refused;
            sum.warned += counts.warned;
            sum.not_reached += counts.not_reached;
            sum.faults += counts.faults;
        }
        text.push_str(&row("all", &sum));
        text
    }
}
