//! `cargo xtask test`: every check of the project, one after the other, until one fails.

mod advisories;
mod isa;
mod steps;
mod tensorboard;
mod totals;

use crate::{
    archive, build,
    cargo::{self, Workspace},
    errors::Result,
    map, minors,
    torch::{self, Libtorch},
};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
};
use steps::{Outcome, Steps};
use totals::Totals;

/// How many changed templates and tokenizers the full tests try, about five minutes' worth; the usual tests try about a thousand.
const FUZZ_CASES: &str = "30000";

/// The variable that decides what is done with a snapshot that differs.
const SNAPSHOTS: &str = "INSTA_UPDATE";
/// A variable with which a snapshot that differs would pass.
const FORCE_PASS: &str = "INSTA_FORCE_PASS";

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

/// Replaces the snapshots of texts by the current texts, and the page of the shipped objectives by what they say of themselves.
pub fn accept() -> Result<()> {
    let mut command = cargo::cargo()?;
    command.args(["test", "--release", "-p", "telos", "--lib", "config::tests::"]).env(SNAPSHOTS, "always");
    passes(&mut command)?;
    let built = build::everything(None)?;
    let mut command = cargo::cargo()?;
    command.args(["test", "--release", "-p", "telos-tests", "--test", "e2e", "authors::shipped::"]);
    passes(command.env(SNAPSHOTS, "always").env("TELOS_TEST_BIN", built.folder()?)).map(|_| ())
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
    steps.step("plugins of released contracts", || {
        let checked = archive::run(&built)?.join("; ");
        Ok(if checked.contains("NOT BUILT") { Outcome::Skipped(checked) } else { Outcome::Noted(checked) })
    })?;
    steps.step("clippy", || {
        let lints = ["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"];
        passes(cargo::cargo()?.args(lints))?;
        match libtorch {
            Some(libtorch) => {
                passes(libtorch.cargo(&workspace, "clippy")?.args(&lints[3..]))?;
                passes(libtorch.cargo(&workspace, "clippy")?.arg("--all-features").args(&lints[3..]))
            }
            None => Ok(Outcome::Passed),
        }
    })?;
    steps.step("map", || map::check().map(|()| Outcome::Passed))?;
    for manifest in cargo::WORKSPACES {
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
    steps.step("TensorBoard", tensorboard::set_up)?;
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
    if let Some(libtorch) = libtorch {
        steps.step("CUDA kernels, emulated", || {
            let cargo = |tests: &[&str]| -> Result<Command> {
                let mut command = libtorch.cargo(&workspace, "test")?;
                command.args(["--no-fail-fast", "--features", "emulated-kernels"]).args(tests);
                Ok(command)
            };
            let mut own = cargo(&["--lib", "--test", "choice", "--test", "fused"])?;
            let nvrtc = libtorch.nvrtc();
            if let Ok(folder) = &nvrtc {
                own.env("TELOS_NVRTC", folder).args(["--", "--include-ignored"]);
            }
            all &= tests(own, built.folder()?, totals)?;
            let mut suite = cargo(&["--test", "conformance"])?;
            suite.env("TELOS_TORCH_KERNELS", "fused");
            all &= tests(suite, built.folder()?, totals)?;
            Ok(match nvrtc {
                Ok(_) => Outcome::Passed,
                Err(why) => Outcome::Noted(format!("NOT RUN: no kernel was compiled for a GPU: {why}")),
            })
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
            // Without TELOS_DATA these tests have no input and are ignored.
            command.args(["--skip", "real_data::"]);
            all &= tests(command, built.folder()?, totals)?;
            Ok(Outcome::Passed)
        })?;
    }
    if all { Ok(()) } else { Err("tests failed, see above".into()) }
}

/// Tests whose numbers depend on the processor, with each instruction set that can be forced here.
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
            let applied = set.probe(libtorch, workspace, built.folder()?)?;
            if applied.forced.is_empty() {
                return Ok(Outcome::Skipped(applied.note()));
            }
            eprintln!("   {}", applied.note());
            for command in [set.plugin_tests(libtorch, workspace)?, set.model_tests()?, set.runs()?] {
                *all &= tests(command, built.folder()?, totals)?;
            }
            Ok(Outcome::Noted(applied.note()))
        })?;
    }
    Ok(())
}

/// Runs a command on this terminal.
fn passes(command: &mut Command) -> Result<Outcome> {
    let status = command.status().map_err(|e| format!("cannot run {}: {e}", command.get_program().display()))?;
    if status.success() {
        Ok(Outcome::Passed)
    } else {
        Err(format!("`{}` failed; its messages are above", describe(command)))
    }
}

fn describe(command: &Command) -> String {
    let words = command.get_args().map(|a| a.to_string_lossy());
    std::iter::once("cargo".into()).chain(words).collect::<Vec<_>>().join(" ")
}

/// Checks licences, bans and sources by `deny.toml`. Advisories need a download and have a step of their own.
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
        return Ok(Outcome::Skipped(format!(
            "not all packages are downloaded: run cargo fetch --manifest-path {manifest}"
        )));
    }
    let mut command = cargo::cargo()?;
    command.args(["deny", "--offline", "--manifest-path"]).arg(root.join(manifest)).args(["check", "--config"]);
    passes(command.arg(root.join("deny.toml")).args(["bans", "licenses", "sources"]))
}

/// Runs unit, integration, end-to-end and documentation tests. Forwards their output and adds up their results. Returns whether
/// all passed.
fn tests(mut command: Command, folder: &Path, totals: &mut Totals) -> Result<bool> {
    // A text that differs from its snapshot is a failure, and leaves no files.
    command.env("TELOS_TEST_BIN", folder).env(SNAPSHOTS, "no").env_remove(FORCE_PASS);
    command.envs(tensorboard::folder().map(|folder| ("TELOS_TENSORBOARD", folder)));
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot run cargo test: {e}"))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
            println!("{line}");
            totals.add(&line);
        }
    }
    let status = child.wait().map_err(|e| format!("cannot wait for cargo test: {e}"))?;
    Ok(status.success())
}
