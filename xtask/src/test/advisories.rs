//! Security advisories on the project's dependencies, by cargo-deny and the database that it downloads.

use super::steps::Outcome;
use crate::{
    cargo::{self, WORKSPACES},
    errors::Result,
};

/// Checks every package of each Cargo.lock against the advisory database, except for the advisories that `deny.toml` accepts.
/// Skipped, with the reason, if cargo-deny is missing or the database cannot be fetched.
pub fn check() -> Result<Outcome> {
    let root = cargo::root()?;
    for manifest in WORKSPACES {
        let mut command = cargo::cargo()?;
        // An accepted advisory need not apply to both workspaces; a test compares the list with both.
        command.args(["deny", "--manifest-path"]).arg(root.join(manifest)).args(["check", "--config"]);
        command.arg(root.join("deny.toml")).args(["--allow", "advisory-not-detected", "advisories"]);
        let output = command.output().map_err(|e| format!("cannot run cargo: {e}"))?;
        let report = String::from_utf8_lossy(&output.stderr);
        match not_checked(output.status.success(), &report) {
            Some(why) => return Ok(Outcome::Skipped(format!("advisories were not checked: {why}"))),
            None if output.status.success() => {}
            None => return Err(format!("cargo deny check advisories failed for {manifest}:\n{report}")),
        }
    }
    Ok(Outcome::Passed)
}

/// Why a failed check did not check advisories.
fn not_checked(passed: bool, report: &str) -> Option<&'static str> {
    if passed {
        None
    } else if report.contains("no such command") {
        Some("cargo-deny is not installed")
    } else if report.contains("failed to fetch advisory database")
        || report.contains("failed to load advisory database")
    {
        Some("the advisory database cannot be fetched")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The accepted advisories of `deny.toml`: id and package.
    fn accepted(text: &str) -> Vec<(String, String)> {
        let between = |line: &str, before: &str, after: char| {
            Some(line.split_once(before)?.1.split_once(after)?.0.to_owned()).filter(|found| !found.is_empty())
        };
        let lines = text.lines().map(str::trim).filter(|line| line.contains("\"RUSTSEC-"));
        let entry = |line: &str| Some((between(line, "id = \"", '"')?, between(line, "reason = \"", ':')?));
        lines.map(|line| entry(line).unwrap_or_else(|| panic!("deny.toml: no id and package in {line}"))).collect()
    }

    fn unused<'a>(accepted: &'a [(String, String)], lock: &str) -> Vec<&'a str> {
        let is_locked = |package: &str| lock.lines().any(|line| line == format!("name = \"{package}\""));
        accepted.iter().filter(|(_, package)| !is_locked(package)).map(|(id, _)| id.as_str()).collect()
    }

    /// Catches an advisory that stays accepted after its package is removed: it would also cover the package if it comes back.
    #[test]
    fn accepted_advisories_name_packages_that_are_still_used() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("a file of the workspace");
        let accepted = accepted(&read("deny.toml"));
        assert!(!accepted.is_empty(), "deny.toml accepts no advisories: remove this test");
        let locks = WORKSPACES.map(|manifest| read(&manifest.replace(".toml", ".lock")));
        let unused = unused(&accepted, &locks.concat());
        assert!(
            unused.is_empty(),
            "remove these from [advisories] of deny.toml, because their packages are no longer used: {}",
            unused.join(", ")
        );
    }

    /// Catches a list that is read wrongly, so that the test above would pass for any list.
    #[test]
    fn an_advisory_of_a_package_that_is_gone_is_found() {
        let text = "ignore = [\n  { id = \"RUSTSEC-1\", reason = \"gone: why\" },\n  { id = \"RUSTSEC-2\", reason = \"here: why\" },\n]";
        let accepted = accepted(text);
        assert_eq!(unused(&accepted, "[[package]]\nname = \"here\"\n"), ["RUSTSEC-1"]);
    }

    /// Catches a machine without network on which the tests fail, and an advisory that is treated as a missing network.
    #[test]
    fn only_a_check_that_could_not_run_is_skipped() {
        assert!(not_checked(false, "error: no such command: `deny`").is_some());
        assert!(not_checked(false, "[ERROR] failed to fetch advisory database https://...").is_some());
        assert_eq!(not_checked(false, "error[vulnerability]: a buffer overflow"), None);
        assert_eq!(not_checked(true, ""), None);
    }
}
