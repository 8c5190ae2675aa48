//! `cargo xtask test`: every check of the project, one after the other, until one fails.

use crate::{
    Result, advisories, build,
    cargo::{self, Workspace},
    isa, minors,
    torch::{self, Libtorch},
};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// How a step ended well.
pub enum Outcome {
    Passed,
    /// With something to know about it.
    Noted(String),
    Skipped(String),
}

/// How many changed templates and tokenizers the full tests try, some five minutes' worth; the usual tests try some thousand.
const FUZZ_CASES: &str = "30000";

/// Steps done so far, with their times.
#[derive(Default)]
struct Steps {
    done: Vec<(String, Duration, Outcome)>,
}

impl Steps {
    /// Runs a step; prints its name before and its time after.
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<Outcome>) -> Result<()> {
        eprintln!("== {name}");
        let start = Instant::now();
        let outcome =
            work().map_err(|why| format!("step `{name}` failed after {}: {why}", seconds(start.elapsed())))?;
        if let Outcome::Skipped(why) = &outcome {
            eprintln!("   skipped: {why}");
        }
        self.done.push((name.to_owned(), start.elapsed(), outcome));
        Ok(())
    }

    fn summary(&self) {
        eprintln!("== summary");
        for (name, time, outcome) in &self.done {
            let note = match outcome {
                Outcome::Passed => String::new(),
                Outcome::Noted(note) => note.clone(),
                Outcome::Skipped(why) => format!("skipped: {why}"),
            };
            eprintln!("   {name:<28} {:>8}  {note}", seconds(*time));
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// All steps; the last lines are the tests' own results.
pub fn run(full: bool) -> Result<ExitCode> {
    let mut steps = Steps::default();
    let mut totals = Totals::default();
    let result = all(&mut steps, &mut totals, full);
    steps.summary();
    result?;
    totals.print();
    Ok(ExitCode::SUCCESS)
}

fn all(steps: &mut Steps, totals: &mut Totals, full: bool) -> Result<()> {
    steps.step("format", || {
        passes(cargo::cargo()?.args(["fmt", "--all", "--check"]))?;
        passes(cargo::cargo()?.args(["fmt", "--check", "--manifest-path"]).arg(torch::manifest()?))
    })?;
    let mut libtorch = None;
    steps.step("libtorch", || {
        if !cfg!(target_os = "linux") {
            return Ok(Outcome::Skipped("the torch plugin is built on Linux only".into()));
        }
        libtorch = Some(Libtorch::set_up()?);
        Ok(Outcome::Passed)
    })?;
    let libtorch = libtorch.as_ref();
    let workspace = Workspace::read()?;
    let mut built = None;
    steps.step("build host and plugins", || {
        built = Some(build::everything(libtorch)?);
        Ok(Outcome::Passed)
    })?;
    let built = built.ok_or("nothing was built")?;
    steps.step("build two minors", || minors::build(&built).map(|()| Outcome::Passed))?;
    steps.step("clippy", || {
        let lints = ["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"];
        passes(cargo::cargo()?.args(lints))?;
        match libtorch {
            Some(libtorch) => passes(libtorch.cargo(&workspace, "clippy")?.args(&lints[3..])),
            None => Ok(Outcome::Passed),
        }
    })?;
    steps.step("map", map)?;
    for manifest in advisories::WORKSPACES {
        steps.step(&format!("licences and bans of {manifest}"), || licences(manifest))?;
    }
    steps.step("advisories", advisories::check)?;
    if full {
        steps.step("documentation", || {
            let doc = ["doc", "--release", "--workspace", "--no-deps", "--document-private-items"];
            passes(
                cargo::cargo()?
                    .args(doc)
                    .env("RUSTDOCFLAGS", "--deny warnings --allow rustdoc::private-intra-doc-links"),
            )
        })?;
        steps.step("benches, one pass each", || {
            passes(cargo::cargo()?.args(["bench", "--workspace", "--benches", "--", "--test"]))
        })?;
    }
    let mut all = true;
    steps.step("tests", || {
        let mut command = cargo::cargo()?;
        command.args(["test", "--release", "--workspace", "--no-fail-fast"]);
        all &= tests(command, built.folder()?, totals)?;
        Ok(Outcome::Passed)
    })?;
    if let Some(libtorch) = libtorch {
        steps.step("tests of the torch plugin", || {
            let mut command = libtorch.cargo(&workspace, "test")?;
            command.arg("--no-fail-fast");
            all &= tests(command, built.folder()?, totals)?;
            Ok(Outcome::Passed)
        })?;
    }
    if full {
        forced(steps, totals, &mut all, &built, libtorch, &workspace)?;
        steps.step("changed templates and tokenizers", || {
            let mut command = cargo::cargo()?;
            command.args(["test", "--release", "--workspace", "--lib", "gotcha_63_changed", "--", "--nocapture"]);
            command.env("TELOS_FUZZ", FUZZ_CASES);
            all &= tests(command, built.folder()?, totals)?;
            Ok(Outcome::Passed)
        })?;
        steps.step("tests that take long", || {
            let mut command = cargo::cargo()?;
            command.args(["test", "--release", "-p", "telos-tests", "--test", "e2e", "--", "--ignored", "--nocapture"]);
            // Without TELOS_DATA these are ignored because their input is missing.
            command.args(["--skip", "real_data::"]);
            all &= tests(command, built.folder()?, totals)?;
            Ok(Outcome::Passed)
        })?;
    }
    if all { Ok(()) } else { Err("tests failed, see above".into()) }
}

/// Tests whose numbers hang on the processor, with each instruction set that can be forced here.
fn forced(
    steps: &mut Steps,
    totals: &mut Totals,
    all: &mut bool,
    built: &build::Built,
    libtorch: Option<&Libtorch>,
    workspace: &Workspace,
) -> Result<()> {
    for set in isa::CANDLE {
        steps.step(&format!("candle with {set}"), || {
            if let Some(why) = isa::candle_lacks(set, &built.host)? {
                return Ok(Outcome::Skipped(format!("NOT RUN: {why}")));
            }
            for command in isa::candle_tests(set)? {
                *all &= tests(command, built.folder()?, totals)?;
            }
            Ok(Outcome::Passed)
        })?;
    }
    let Some(libtorch) = libtorch else { return Ok(()) };
    for set in isa::TORCH {
        steps.step(&format!("torch with {}", set.name), || {
            let taken = set.probe(libtorch, workspace, built.folder()?)?;
            if taken.forced.is_empty() {
                return Ok(Outcome::Skipped(taken.note()));
            }
            eprintln!("   {}", taken.note());
            for command in [set.plugin_tests(libtorch, workspace)?, set.model_tests()?, set.runs()?] {
                *all &= tests(command, built.folder()?, totals)?;
            }
            Ok(Outcome::Noted(taken.note()))
        })?;
    }
    Ok(())
}

/// Runs a command with the terminal as its own.
fn passes(command: &mut Command) -> Result<Outcome> {
    let status = command.status().map_err(|e| format!("cannot run {}: {e}", command.get_program().display()))?;
    if status.success() { Ok(Outcome::Passed) } else { Err(format!("{} said so above", describe(command))) }
}

fn describe(command: &Command) -> String {
    let words = command.get_args().map(|a| a.to_string_lossy());
    std::iter::once("cargo".into()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The contract's crates, with what none of them may bring along: objectives know nothing of tensors, and a plugin compiles neither
/// the laws nor what loads plugins.
const BANNED: [(&str, &[&str]); 3] = [
    ("plugin-api", &["candle-core", "tch", "gemm", "burn", "plugin-api-laws", "plugin-api-load"]),
    ("plugin-api-laws", &["candle-core", "tch", "gemm", "burn", "plugin-api-load"]),
    ("plugin-api-load", &["candle-core", "tch", "gemm", "burn", "plugin-api-laws"]),
];

/// Checks what the contract's crates depend on.
fn map() -> Result<Outcome> {
    BANNED.iter().try_for_each(|(package, banned)| depends_on_none(package, banned)).map(|()| Outcome::Passed)
}

fn depends_on_none(package: &str, banned: &[&str]) -> Result<()> {
    let tree = ["tree", "--package", package, "--all-features", "--edges", "normal,build", "--prefix", "none"];
    let output = cargo::cargo()?.args(tree).stderr(Stdio::inherit()).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err("cargo tree failed".into());
    }
    let tree = String::from_utf8_lossy(&output.stdout);
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let found: Vec<&str> = names.filter(|name| banned.contains(name)).collect();
    if found.is_empty() { Ok(()) } else { Err(format!("{package} depends on {}", found.join(", "))) }
}

/// Advisories need a download and have a step of their own: here, what `deny.toml` says of licences, bans and sources.
fn licences(manifest: &str) -> Result<Outcome> {
    let installed = cargo::cargo()?.args(["deny", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !installed.is_ok_and(|s| s.success()) {
        return Ok(Outcome::Skipped("cargo-deny is not installed".into()));
    }
    let root = cargo::root()?;
    let mut metadata = cargo::cargo()?;
    metadata.args(["metadata", "--offline", "--locked", "--format-version", "1", "--manifest-path"]);
    let read = metadata.arg(root.join(manifest)).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !read.is_ok_and(|s| s.success()) {
        return Ok(Outcome::Skipped(format!("not all packages are here: cargo fetch --manifest-path {manifest}")));
    }
    let mut command = cargo::cargo()?;
    command.args(["deny", "--offline", "--manifest-path"]).arg(root.join(manifest)).args(["check", "--config"]);
    passes(command.arg(root.join("deny.toml")).args(["bans", "licenses", "sources"]))
}

/// Unit, integration, end-to-end and documentation tests. Their output passes through and is added up.
/// Yields whether all passed.
fn tests(mut command: Command, folder: &Path, totals: &mut Totals) -> Result<bool> {
    command.env("TELOS_TEST_BIN", folder);
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot run cargo test: {e}"))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
            println!("{line}");
            totals.add(&line);
        }
    }
    let status = child.wait().map_err(|e| format!("cargo test was lost: {e}"))?;
    Ok(status.success())
}

/// Sums of the test runner's result lines.
#[derive(Default, Debug, PartialEq)]
struct Totals {
    binaries: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    /// Adds a line such as `test result: ok. 12 passed; 0 failed; 1 ignored; ...`; passes over any other.
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else { return };
        self.binaries += 1;
        for count in counts.1.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let number: u64 = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    fn print(&self) {
        let verdict = if self.failed == 0 { "ok" } else { "FAILED" };
        let Totals { binaries, passed, failed, ignored } = self;
        println!(
            "test result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; in {binaries} test programs"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches sums that take the wrong column or count a line that is no result.
    #[test]
    fn result_lines_are_added_up() {
        let mut totals = Totals::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s",
            "test tape::sum ... ok",
            "test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            totals.add(line);
        }
        assert_eq!(totals, Totals { binaries: 2, passed: 14, failed: 4, ignored: 1 });
    }
}
