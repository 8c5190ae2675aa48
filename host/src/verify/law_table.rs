//! Prints the verification of an objective or a reward: one line per law, below it the failures, and the verdict
//! last.

use std::{collections::BTreeMap, fmt};

use plugin_api_laws::Line;

use super::laws::{LawResult, LawVerification};
use super::table::{error, limit};

/// Number of failing option sets that are listed per law; `--json` has them all.
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
        let mut shown = Shown::default();
        laws.iter().try_for_each(|law| row(f, law, width, &mut shown))?;
        writeln!(f, "\n{}", self.verdict())
    }
}

/// Errors that the table already shows, each with the law under which it was shown.
type Shown = BTreeMap<String, String>;

fn row(f: &mut fmt::Formatter<'_>, law: &LawResult, width: usize, shown: &mut Shown) -> fmt::Result {
    let (worst, most) = match law.worst {
        Some(worst) => (error(worst.error), limit(worst.limit)),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let mark = if law.passed { "passed" } else { "FAILED" };
    writeln!(f, "{:width$}  {:>6}  {worst:>11}  {most:>5}  {mark}  {}", law.name, law.checks, law.meaning)?;
    let mut faults: Vec<(&Line, usize)> = Vec::new();
    for line in law.lines.iter().filter(|line| !line.passed) {
        match faults.iter_mut().find(|(first, _)| first.detail == line.detail) {
            Some((_, sets)) => *sets += 1,
            None => faults.push((line, 1)),
        }
    }
    for (line, sets) in faults.iter().take(LISTED) {
        if let Some(first) = shown.get(&line.detail) {
            writeln!(f, "    the same error as for `{first}`")?;
            continue;
        }
        shown.insert(line.detail.clone(), law.name.clone());
        let case = if line.case.is_empty() { String::new() } else { format!("{}: ", line.case) };
        let others = match sets - 1 {
            0 => String::new(),
            1 => " (and under another option set)".to_owned(),
            more => format!(" (and under {more} other option sets)"),
        };
        writeln!(f, "    {case}{}{others}", line.detail.replace('\n', "\n        "))?;
        if let Some(smallest) = &line.counterexample {
            writeln!(f, "        smallest counterexample: {smallest}")?;
        }
    }
    if let Some(more) = faults.len().checked_sub(LISTED).filter(|more| *more > 0) {
        writeln!(f, "    and {more} more; --json lists them all")?;
    }
    let mut notes: Vec<&str> = law.lines.iter().filter(|line| line.passed).map(|line| line.detail.as_str()).collect();
    notes.retain(|note| NOTES.iter().any(|shown| note.contains(shown)));
    notes.dedup();
    notes.iter().try_for_each(|note| writeln!(f, "    note: {note}"))
}

/// Notes that are shown even for a law that passes.
const NOTES: &[&str] = &[
    "seems to be linear",
    "nothing is expected",
    "are they read?",
    "rows kept",
    "grows with every step",
    "flows from one row into another",
    "outside its healthy range",
];

impl LawVerification {
    /// The last line.
    fn verdict(&self) -> String {
        let failed: Vec<&str> = self.laws.iter().filter(|law| !law.passed).map(|law| law.name.as_str()).collect();
        let (plugin, sets) = (&self.plugin.id, self.options.len());
        match self.passed {
            true => {
                let of = if sets == 1 { "option set" } else { "option sets" };
                format!("passed: {} laws of {plugin}, {sets} {of}", self.laws.len())
            }
            false => format!("FAILED: {} of {} laws of {plugin}: {}", failed.len(), self.laws.len(), failed.join(", ")),
        }
    }
}
