//! The verification of an objective or a reward for people: a line per law, below it what broke it, and the verdict last.

use std::fmt;

use super::laws::{LawResult, LawVerification};
use super::table::{error, limit};

/// Broken option sets of a law that are listed; `--json` has them all.
const LISTED: usize = 3;

impl fmt::Display for LawVerification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LawVerification { plugin, options, columns, laws, .. } = self;
        writeln!(f, "{} {} {}, sha256 {}", plugin.kind, plugin.id, plugin.version, plugin.sha256)?;
        if !options.is_empty() {
            let sets = if options.len() == 1 { "option set" } else { "option sets" };
            writeln!(f, "{} {sets}: {}", options.len(), options.join("; "))?;
        }
        if !columns.is_empty() {
            writeln!(f, "columns drawn: {} (--column NAME=LOW..HIGH for another range)", columns.join(", "))?;
        }
        let width = laws.iter().map(|law| law.name.len()).max().unwrap_or(0);
        writeln!(f, "\n{:width$}  CHECKS  WORST ERROR  LIMIT", "LAW")?;
        laws.iter().try_for_each(|law| row(f, law, width))?;
        writeln!(f, "\n{}", self.verdict())
    }
}

fn row(f: &mut fmt::Formatter<'_>, law: &LawResult, width: usize) -> fmt::Result {
    let (worst, most) = match law.worst {
        Some(worst) => (error(worst.error), limit(worst.limit)),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let mark = if law.passed { "passed" } else { "FAILED" };
    writeln!(f, "{:width$}  {:>6}  {worst:>11}  {most:>5}  {mark}  {}", law.name, law.checks, law.meaning)?;
    let broken: Vec<_> = law.lines.iter().filter(|line| !line.passed).collect();
    for line in broken.iter().take(LISTED) {
        let case = if line.case.is_empty() { String::new() } else { format!("{}: ", line.case) };
        writeln!(f, "    {case}{}", line.detail.replace('\n', "\n        "))?;
        if let Some(smallest) = &line.counterexample {
            writeln!(f, "        smallest counterexample: {smallest}")?;
        }
    }
    if let Some(more) = broken.len().checked_sub(LISTED).filter(|more| *more > 0) {
        writeln!(f, "    and {more} more; --json lists them all")?;
    }
    let mut notes: Vec<&str> = law.lines.iter().filter(|line| line.passed).map(|line| line.detail.as_str()).collect();
    notes.retain(|note| NOTES.iter().any(|told| note.contains(told)));
    notes.dedup();
    notes.iter().try_for_each(|note| writeln!(f, "    note: {note}"))
}

/// What of a law that holds is worth a line.
const NOTES: &[&str] = &["seems to be linear", "nothing is expected", "are they read?", "rows kept"];

impl LawVerification {
    /// The last line.
    fn verdict(&self) -> String {
        let failed: Vec<&str> = self.laws.iter().filter(|law| !law.passed).map(|law| law.name.as_str()).collect();
        let (plugin, sets) = (&self.plugin.id, self.options.len());
        match self.passed {
            true => format!("passed: {} laws of {plugin}, {sets} option sets", self.laws.len()),
            false => format!("FAILED: {} of {} laws of {plugin}: {}", failed.len(), self.laws.len(), failed.join(", ")),
        }
    }
}
