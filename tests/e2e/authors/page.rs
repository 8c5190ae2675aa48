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

/// The page's blocks in order, each with its language.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let content = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            found.push((language, content));
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

/// Catches a page with a command that fails, a file that is not the one that `new` makes, or an objective that does not build or
/// breaks a law; a distribution whose SDK lacks a source, needs the network or its old place; a plot or a receipt that is not written.
#[test]
fn the_commands_of_the_page_lead_from_an_idea_to_a_plot() {
    let lab = tempfile::tempdir().expect("a temporary folder");
    let distribution = moved(&lab);
    let desk = lab.path().join("a researcher's desk");
    fs::create_dir(&desk).expect("a folder");
    let page = page();
    let blocks = blocks(&page);
    let languages: Vec<&str> = blocks.iter().map(|(language, _)| *language).collect();
    assert_eq!(
        languages,
        ["sh", "rust", "sh", "sh", "sh", "sh", "sh", "sh", "rust", "sh"],
        "the page has other blocks"
    );
    let sources: Vec<&String> = blocks.iter().filter(|(kind, _)| *kind == "rust").map(|(_, text)| text).collect();
    // The page gives them a minute.
    let [rows, rollouts] = [
        "--set train.steps=20 --set train.schedule=constant",
        "--set stage.start.train.steps=20 --set stage.start.train.schedule=constant \
         --set stage.tuned.train.steps=2 --set stage.tuned.eval.generate=20",
    ];
    let short = |line: &str, sets: &str| match line.split_whitespace().take(3).collect::<Vec<_>>().as_slice() {
        ["telos", "plugins", "try"] => format!("{line} --seconds 6\n"),
        ["telos", "run", _] => format!("{line} {sets}\n"),
        _ => format!("{line}\n"),
    };
    let mut script = String::new();
    for (at, (language, text)) in blocks.iter().enumerate() {
        match *language {
            "sh" => {
                let sets = if blocks[..at].iter().filter(|(language, _)| *language == "rust").count() > 1 {
                    rollouts
                } else {
                    rows
                };
                script.extend(text.lines().map(|line| short(line, sets)));
            }
            // The first source is the one that `new` makes; the second one replaces that.
            _ if text == sources[0] => {}
            _ => script += &format!("cat > src/lib.rs <<'END'\n{text}END\n"),
        }
    }
    let answer = Answer::of(shell(&desk, &distribution).args(["-euxc", &script]));
    let out = answer.succeeds();

    let krate = desk.join("penalty-ce");
    let library = fs::read_to_string(krate.join("src/lib.rs")).expect("the library's source");
    assert_eq!(*sources[0], library, "the page's source is not what `new` makes");
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

    assert!(out.contains("installed the objective `capped-pg` 0.1.0"), "{answer:#?}");
    let tuned = fs::read_to_string(desk.join("capped-pg/runs/capped-pg/tuned/metrics.jsonl")).expect("its metrics");
    assert!(tuned.contains("\"capped\""), "{tuned}");

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
