//! Prints a verification: one line per operation, below it the failures, and the verdict last.

use std::fmt;

use super::{Group, Verification};

/// Number of failed checks that are listed per group; `--json` has them all.
const LISTED: usize = 8;

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verification { backend, reference, device, threads, options, .. } = self;
        writeln!(f, "backend {} {}, sha256 {}", backend.id, backend.version, backend.sha256)?;
        let options: String = options.iter().map(|(key, value)| format!(", {key} = {value}")).collect();
        writeln!(f, "on {device}, threads {threads}{options}; compared with {} {}", reference.id, reference.version)?;
        let width = self.groups.iter().map(|group| group.name.len()).max().unwrap_or(0).max("OPERATION".len());
        for (at, group) in self.groups.iter().enumerate() {
            if at == 0 || self.groups[at - 1].dtype != group.dtype {
                let dtype = group.dtype.as_str();
                writeln!(
                    f,
                    "\n{:width$}  {dtype:<5} {:>6}  {:>11}  {:>7}",
                    "OPERATION", "CHECKS", "WORST ERROR", "LIMIT"
                )?;
            }
            row(f, group, width)?;
        }
        writeln!(f, "\n{}", self.verdict())
    }
}

fn row(f: &mut fmt::Formatter<'_>, group: &Group, width: usize) -> fmt::Result {
    let (error, limit) = match group.worst {
        Some(worst) => (error(worst.error), limit(worst.limit)),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let mark =
        if group.passed { "passed".to_owned() } else { format!("FAILED ({} of {})", group.failed, group.checks) };
    writeln!(f, "{:width$}  {:5} {:>6}  {error:>11}  {limit:>7}  {mark}", group.name, "", group.checks)?;
    for line in group.lines.iter().filter(|line| !line.passed).take(LISTED) {
        writeln!(f, "    {}: {}: {}", group.name, line.case, line.detail.replace('\n', "\n        "))?;
    }
    match group.failed.saturating_sub(LISTED) {
        0 => Ok(()),
        more => writeln!(f, "    and {more} more; --json lists them all"),
    }
}

pub(super) fn error(error: f64) -> String {
    match error {
        0.0 => "0".to_owned(),
        f64::MAX => "not finite".to_owned(),
        error => format!("{error:.1e}"),
    }
}

pub(super) fn limit(limit: f64) -> String {
    if limit == 0.0 { "exact".to_owned() } else { format!("{limit:.1e}") }
}

impl Verification {
    /// The last line.
    fn verdict(&self) -> String {
        let checks: usize = self.groups.iter().map(|group| group.checks).sum();
        let failed: usize = self.groups.iter().map(|group| group.failed).sum();
        let mut dtypes: Vec<&str> = self.groups.iter().map(|group| group.dtype.as_str()).collect();
        dtypes.dedup();
        let dtypes = dtypes.join(", ");
        match self.passed {
            true => format!("passed: {checks} checks of {}, {dtypes}", self.backend.id),
            false => format!("FAILED: {failed} of {checks} checks of {}, {dtypes}", self.backend.id),
        }
        .trim_end_matches([',', ' '])
        .to_owned()
    }
}
