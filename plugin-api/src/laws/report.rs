//! What came of checking laws: one line per law and case, as a value, a table or a test's failure.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One law, checked on one case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The law, or the family of laws.
    pub group: String,
    /// What it was checked on: options, an operation, a shape.
    pub case: String,
    /// Whether it holds.
    pub passed: bool,
    /// How it was broken; where it holds, anything worth knowing, or nothing.
    pub detail: String,
}

/// All lines, in the order they were checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The lines.
    pub lines: Vec<Line>,
}

impl Report {
    /// Adds a line.
    pub fn push(&mut self, group: &str, case: &str, outcome: Result<String, String>) {
        let passed = outcome.is_ok();
        let detail = outcome.unwrap_or_else(|broken| broken);
        self.lines.push(Line { group: group.to_owned(), case: case.to_owned(), passed, detail });
    }

    /// Whether every law holds. A report without lines checked nothing and is not good.
    pub fn is_ok(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(|line| line.passed)
    }

    /// The broken ones.
    pub fn failures(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| !line.passed)
    }

    /// For a test.
    ///
    /// # Panics
    /// With the whole table where a law is broken or nothing was checked.
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
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_lines_is_not_good() {
        assert!(!Report::default().is_ok());
    }

    #[test]
    fn failures_stand_in_the_table_with_their_detail() {
        let mut report = Report::default();
        report.push("order", "{}", Ok(String::new()));
        assert!(report.is_ok());
        report.push("masked", "{\"beta\":1}", Err("nll: sum is NaN".into()));
        assert!(!report.is_ok());
        assert_eq!(report.to_string(), "ok      order   {}\nFAILED  masked  {\"beta\":1}  nll: sum is NaN\n");
    }
}
