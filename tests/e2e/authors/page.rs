//! docs/write-an-objective.md: its commands are run, in a distribution that was moved, as a researcher would run them.

use std::{env, ffi::OsString, fs, path::Path, process::Command};

use crate::{
    runs::distribution::moved,
    support::rig::{Answer, bin, clean},
};

/// The page.
fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    fs::read_to_string(root.join("docs/write-an-objective.md")).expect("the page")
}

/// The content of the page's blocks of a language, in order.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line == format!("```{language}") {
            found.push(lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect());
        }
    }
    found
}

/// A shell in `folder` that finds the distribution's telos, and builds with the machine's registry alone. Builds of
/// authors' crates share a target folder, since most of their time goes into the packages that the contract depends on.
pub fn shell(folder: &Path, distribution: &Path) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [distribution.to_owned()].into_iter().chain(env::split_paths(&path));
    let path: OsString = env::join_paths(folders).expect("a list of folders");
    let mut command = Command::new("sh");
    clean(&mut command)
        .current_dir(folder)
        .env("PATH", path)
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_TARGET_DIR", bin().with_file_name("authors"))
        // Those of the test runner.
        .env_remove("TELOS_SDK")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// Catches a page with a command that fails or a file that is not the one that `new` makes; a distribution whose SDK
/// lacks a source, needs the network or its old place; a plot or a receipt that is not written.
#[test]
fn the_commands_of_the_page_lead_from_an_idea_to_a_plot() {
    let lab = tempfile::tempdir().expect("a temporary folder");
    let distribution = moved(&lab);
    let desk = lab.path().join("a researcher's desk");
    fs::create_dir(&desk).expect("a folder");
    let page = page();
    let commands = blocks(&page, "sh").concat();
    assert!(commands.lines().count() >= 9, "{commands}");
    // The page gives them a minute.
    let short = |line: &str| match line.split_whitespace().take(3).collect::<Vec<_>>().as_slice() {
        ["telos", "plugins", "try"] => format!("{line} --seconds 6\n"),
        ["telos", "run", _] => format!("{line} --set train.steps=20 --set train.schedule=constant\n"),
        _ => format!("{line}\n"),
    };
    let script: String = commands.lines().map(short).collect();
    let answer = Answer::of(shell(&desk, &distribution).args(["-euxc", &script]));
    let out = answer.succeeds();

    let krate = desk.join("penalty-ce");
    let library = fs::read_to_string(krate.join("src/lib.rs")).expect("the library's source");
    assert_eq!(blocks(&page, "rust"), [library], "the page's source is not what `new` makes");
    assert!(out.contains("installed the objective `penalty-ce` 0.1.0"), "{answer:#?}");
    assert!(distribution.join("plugins").join("libpenalty_ce.so").is_file() || cfg!(not(target_os = "linux")));
    let trial = krate.join("runs/try-penalty-ce");
    for file in ["try.toml", "ce/receipt.json", "penalty-ce/receipt.json"] {
        assert!(trial.join(file).is_file(), "no {file} in {answer:#?}");
    }
    let picture = fs::read_to_string(trial.join("try.svg")).expect("a plot");
    assert!(picture.starts_with("<svg") && picture.contains("penalty-ce beside ce"), "{picture}");
    for colour in ["#0072B2", "#D55E00"] {
        assert_eq!(picture.matches(colour).count(), 2, "a curve and its line in the legend: {picture}");
    }
    for run in ["penalty-ce", "more-entropy"] {
        assert!(krate.join("runs").join(run).join("receipt.json").is_file(), "{run}");
    }
    assert!(!krate.join("runs/plugins.lock").exists(), "--dev and a trial pin nothing");

    // A second trial replaces the first one, and keeps what the user wrote.
    fs::write(trial.join("notes.txt"), "mine").expect("written");
    let again =
        Answer::of(shell(&krate, &distribution).args(["-c", "telos plugins try penalty-ce --seconds 4 --json"]));
    again.succeeds();
    let result = again.json();
    assert_eq!(result["runs"][1]["objective"], "penalty-ce", "{result:#}");
    for run in result["runs"].as_array().expect("two runs") {
        let measured = |at: usize| run["measured"][at].as_f64().expect("a number");
        assert!((measured(0) - 257_f64.ln()).abs() < 0.2 && measured(1) < measured(0), "{result:#}");
        assert!(run["gold"][1].is_number(), "{result:#}");
    }
    assert_eq!(result["runs"][0]["measured"][0], result["runs"][1]["measured"][0], "not the same start");
    assert!(trial.join("notes.txt").is_file());
}
