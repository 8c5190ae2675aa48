//! The results of checking laws: one line per law and case, as a value, a table or a test's failure.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The error of numbers and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The worst error of the check; the largest number if one side is infinite or NaN.
    pub error: f64,
    /// The limit.
    pub limit: f64,
}

impl Agreement {
    /// Equal numbers, without tolerance.
    pub const EXACT: Agreement = Agreement { error: 0.0, limit: 0.0 };

    /// An error against its limit.
    pub fn new(error: f64, limit: f64) -> Self {
        // JSON has no infinity.
        Agreement { error: if error.is_nan() { f64::MAX } else { error.min(f64::MAX) }, limit }
    }

    /// The one with the larger error relative to its limit.
    #[must_use]
    pub fn worse(self, other: Agreement) -> Agreement {
        let share = |a: &Agreement| if a.error == 0.0 { 0.0 } else { a.error / a.limit };
        let key = |a: &Agreement| (share(a), a.limit);
        if key(&other) > key(&self) { other } else { self }
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worst error {:.1e}", self.error)
    }
}

/// How a law was broken.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken {
    /// In words.
    pub text: String,
    /// The numbers, if it is about numbers.
    pub agreement: Option<Agreement>,
}

impl Broken {
    /// The same with its context before the text.
    #[must_use]
    pub fn within(self, what: &str) -> Broken {
        Broken { text: format!("{what}: {}", self.text), ..self }
    }
}

impl From<String> for Broken {
    fn from(text: String) -> Self {
        Broken { text, agreement: None }
    }
}

/// One law, checked on one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The law, or the family of laws.
    pub group: String,
    /// What it was checked on: options, an operation, a shape.
    pub case: String,
    /// Whether it holds.
    pub passed: bool,
    /// How it was broken; if it holds, a note or nothing.
    pub detail: String,
    /// The numbers of a law about numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
    /// The smallest input found that breaks the law, if the law is about inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterexample: Option<String>,
}

/// All lines, in the order they were checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The lines.
    pub lines: Vec<Line>,
}

impl Report {
    /// Adds a line.
    pub fn push(&mut self, group: &str, case: &str, outcome: Result<String, String>) {
        let passed = outcome.is_ok();
        let detail = outcome.unwrap_or_else(|broken| broken);
        self.add(group, case, passed, detail, None);
    }

    /// Adds a line about numbers.
    pub fn measure(&mut self, group: &str, case: &str, outcome: Result<Agreement, Broken>) {
        match outcome {
            Ok(agreement) => self.add(group, case, true, agreement.to_string(), Some(agreement)),
            Err(broken) => self.add(group, case, false, broken.text, broken.agreement),
        }
    }

    /// Adds a broken law with the smallest input that breaks it.
    pub fn refute(&mut self, group: &str, case: &str, broken: Broken, counterexample: Option<String>) {
        self.add(group, case, false, broken.text, broken.agreement);
        if let Some(line) = self.lines.last_mut() {
            line.counterexample = counterexample;
        }
    }

    /// Adds a law that holds: a note, and its numbers.
    pub fn uphold(&mut self, group: &str, case: &str, detail: String, agreement: Option<Agreement>) {
        self.add(group, case, true, detail, agreement);
    }

    fn add(&mut self, group: &str, case: &str, passed: bool, detail: String, agreement: Option<Agreement>) {
        let (group, case, counterexample) = (group.to_owned(), case.to_owned(), None);
        self.lines.push(Line { group, case, passed, detail, agreement, counterexample });
    }

    /// Whether every law holds; false for a report without lines.
    pub fn is_ok(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(|line| line.passed)
    }

    /// The broken ones.
    pub fn failures(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| !line.passed)
    }

    /// Panics unless every law holds, for a test.
    ///
    /// # Panics
    /// With the whole table if a law is broken or nothing was checked.
    pub fn assert_ok(&self) {
        assert!(self.is_ok(), "{} of {} checks failed\n{self}", self.failures().count(), self.lines.len());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |of: fn(&Line) -> &str| self.lines.iter().map(|line| of(line).chars().count()).max().unwrap_or(0);
        let (group, case) = (width(|line| &line.group), width(|line| &line.case));
        for line in &self.lines {
            let mark = if line.passed { "ok    " } else { "FAILED" };
            let text = format!("{mark}  {:group$}  {:case$}  {}", line.group, line.case, line.detail);
            writeln!(f, "{}", text.trim_end())?;
            if let Some(counterexample) = &line.counterexample {
                writeln!(f, "        smallest counterexample: {counterexample}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_report_does_not_pass() {
        assert!(!Report::default().is_ok());
    }

    /// Catches a worst error chosen without its limit: 1e-3 is much in f32 and little in bf16.
    #[test]
    fn the_worse_of_two_has_the_larger_share_of_its_limit() {
        let [f32, bf16] = [Agreement::new(1e-3, 1e-5), Agreement::new(1e-2, 2e-2)];
        assert_eq!((f32.worse(bf16), bf16.worse(f32)), (f32, f32));
        let exact = Agreement::new(1.0, 0.0);
        assert_eq!(f32.worse(exact), exact);
        assert_eq!(Agreement::EXACT.worse(Agreement::new(0.0, 1e-5)).limit, 1e-5);
    }

    /// Catches an infinite error that is written as null and cannot be read back.
    #[test]
    fn a_report_survives_json() {
        let mut report = Report::default();
        let agreement = Agreement::new(f64::INFINITY, 1e-5);
        report.measure("norm", "3 x 7", Err(Broken { text: "NaN".into(), agreement: Some(agreement) }));
        report.measure("norm", "1 x 1", Ok(Agreement::new(1.25e-7, 1e-5)));
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn failures_are_in_the_table_with_their_detail() {
        let mut report = Report::default();
        report.push("order", "{}", Ok(String::new()));
        assert!(report.is_ok());
        report.push("masked", "{\"beta\":1}", Err("nll: sum is NaN".into()));
        assert!(!report.is_ok());
        assert_eq!(report.to_string(), "ok      order   {}\nFAILED  masked  {\"beta\":1}  nll: sum is NaN\n");
    }
}
