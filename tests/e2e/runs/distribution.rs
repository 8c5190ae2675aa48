//! The distribution: the folder that `cargo xtask dist` makes from a build works at any path, without the build.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::rig::{Answer, bin, clean};

/// `xtask dist` of the build under test.
fn dist(out: &Path) -> Answer {
    let mut command = Command::new(bin().join("xtask"));
    Answer::of(command.arg("dist").arg("--built").arg(bin()).arg("--out").arg(out))
}

/// A distribution that was moved after it was made, in a folder of its own, with a space in its path.
pub fn moved(lab: &TempDir) -> PathBuf {
    let (made, moved) = (lab.path().join("made"), lab.path().join("moved to").join("there"));
    let answer = dist(&made);
    assert!(answer.succeeds().contains("MiB"), "{answer:#?}");
    fs::create_dir(lab.path().join("moved to")).expect("a folder");
    fs::rename(&made, &moved).expect("moved");
    moved
}

/// A program of the distribution, started from elsewhere.
fn program(folder: &Path, name: &str, lab: &TempDir) -> Command {
    let mut command = Command::new(folder.join(name));
    clean(&mut command).current_dir(lab.path());
    command
}

/// Catches a distribution that needs the folder it was made in or the build it was made of, that lacks a plugin, whose
/// plugins were stripped of what the host reads, or whose files are not stripped at all.
#[test]
fn a_moved_distribution_finds_its_plugins_and_trains() {
    let lab = tempfile::tempdir().expect("a temporary folder");
    let folder = moved(&lab);
    let listed = Answer::of(program(&folder, "telos", &lab).args(["plugins", "list", "--json"]));
    let listed: Value = serde_json::from_str(listed.succeeds()).expect("JSON");
    let plugins = listed["plugins"].as_array().expect("a list");
    for (kind, id) in [("backend", "candle"), ("backend", "reference"), ("objective", "ce")] {
        let found = plugins.iter().find(|p| p["kind"] == kind && p["id"] == id);
        let file = found.and_then(|p| p["file"].as_str()).unwrap_or_else(|| panic!("no {id} in {listed:#}"));
        assert!(Path::new(file).starts_with(&folder), "{file}");
    }
    assert!(!plugins.iter().any(|p| p["id"].as_str().is_some_and(|id| id.contains("test"))), "{listed:#}");

    let mut run = program(&folder, "telos", &lab);
    run.arg("run").arg(folder.join("experiments/pretrain.toml"));
    for set in ["train.steps=2", "train.schedule=constant", "eval.tokens=500", "data.rows=500", "sample.max_tokens=4"] {
        run.args(["--set", set]);
    }
    Answer::of(&mut run).succeeds();
    assert!(lab.path().join("runs/pretrain/metrics.jsonl").is_file());

    for file in ["telos", "telos-step"] {
        let size = |folder: &Path| fs::metadata(folder.join(file)).expect("a file").len();
        assert!(size(&folder) < size(&bin()), "{file} is as large as the build's");
    }
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).expect("sums");
    for file in ["telos", "benches/gpu.sh", "benches/peers/pytorch.py", "experiments/quickstart.toml", "README.md"] {
        assert!(sums.lines().any(|line| line.ends_with(&format!("  {file}"))), "{file} is not in\n{sums}");
    }
}

/// Catches a README that links or names files which the distribution lacks, as those of the source tree.
#[test]
fn a_distribution_has_what_its_documents_name() {
    let lab = tempfile::tempdir().expect("a temporary folder");
    let folder = moved(&lab);
    let pages = fs::read_dir(folder.join("docs")).expect("documents").map(|page| page.expect("a page").path());
    let pages: Vec<PathBuf> = pages.chain(["README.md", "SECURITY.md"].map(|page| folder.join(page))).collect();
    assert!(pages.len() >= 8, "{pages:?}");
    for page in &pages {
        let text = fs::read_to_string(page).expect("a text");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            assert!(page.with_file_name(link).exists(), "{} links {link}, which is not there", page.display());
        }
    }
    let readme = fs::read_to_string(folder.join("README.md")).expect("a text");
    let files = readme.split('`').skip(1).step_by(2).filter(|code| {
        let (is_path, endings) = (code.contains('/') && !code.contains(' '), [".md", ".toml", ".sh", ".py"]);
        is_path && !code.starts_with("runs/") && endings.iter().any(|ending| code.ends_with(ending))
    });
    let files: Vec<&str> = files.collect();
    assert!(files.contains(&"tests/results/road.md"), "{files:?}");
    for file in files {
        assert!(folder.join(file).is_file(), "the README names {file}, which is not there");
    }
}

/// Catches advice to build a missing plugin in a folder without sources, and sums that an added plugin breaks.
#[test]
fn a_distribution_says_what_a_user_of_it_can_do() {
    let lab = tempfile::tempdir().expect("a temporary folder");
    let folder = moved(&lab);
    let answer = Answer::of(program(&folder, "telos", &lab).args(["plugins", "show", "nope"]));
    answer.refuses(2, &["there is no plugin `nope`", "telos plugins install PATH", "TELOS_PLUGINS"]);
    assert!(!answer.err.contains("cargo"), "{answer:#?}");
    fs::write(folder.join("plugins/libmine.so"), "added").expect("written");
    let mut check = Command::new("sha256sum");
    Answer::of(check.current_dir(&folder).args(["--check", "--quiet", "SHA256SUMS"])).succeeds();
    let card = fs::read_to_string(folder.join("DIST.txt")).expect("a text");
    assert!(card.contains("and no others"), "{card}");
}

/// Catches a step program that finds no plugins, trains another model, or measures something without a request.
#[test]
fn the_step_program_reports_times_and_refuses_unknown_commands() {
    let lab = tempfile::tempdir().expect("a temporary folder");
    let folder = moved(&lab);
    let ask = |lines: &str| {
        let mut command = program(&folder, "telos-step", &lab);
        command.arg(folder.join("experiments/bench-small.toml")).args(["--set", "backend.threads=1"]);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().expect("it starts");
        child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("written");
        Answer::from_output(child.wait_with_output().expect("a child"))
    };
    let output = ask("go 1\ngo 3\n");
    let lines: Vec<Value> =
        output.succeeds().lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    let [ready, one, three] = lines.as_slice() else { panic!("{output:#?}") };
    // 4 layers of 4 x 128 x 128 + 3 x 128 x 384 weights and two norms, a last norm, embedding and head of 257 x 128.
    assert_eq!(ready["parameters"], 4 * (4 * 128 * 128 + 3 * 128 * 384 + 2 * 128) + 128 + 2 * 257 * 128);
    assert_eq!((&ready["tokens_per_step"], &one["steps"], &three["steps"]), (&768.into(), &1.into(), &3.into()));
    let first = ready["first_loss"].as_f64().expect("a number");
    assert!((first - 257_f64.ln()).abs() < 0.1, "an untrained model's loss is {first}");
    assert!(three["loss"].as_f64() < Some(first), "it does not learn: {output:#?}");

    let output = ask("stop\n");
    output.refuses(2, &["`stop` is not `go N`"]);
    assert!(output.out.lines().last().is_some_and(|line| line.contains("\"error\"")), "{output:#?}");
}

/// Catches a dist that deletes a folder of the user.
#[test]
fn a_folder_that_is_not_a_distribution_is_not_replaced() {
    let lab = tempfile::tempdir().expect("a temporary folder");
    let notes = lab.path().join("notes.txt");
    fs::write(&notes, "mine").expect("written");
    dist(lab.path()).refuses(1, &["is not a distribution", "--out"]);
    assert_eq!(fs::read_to_string(notes).expect("still there"), "mine");
    let entries = fs::read_dir(lab.path()).expect("a folder").count();
    assert_eq!(entries, 1, "something else was left there");
}
