//! The same preference and policy-gradient experiments on several backends, and pairs of a model's own answers.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::lab::{Lab, Run, Running, SMALL, json_lines};

const BASE: &str = r#"
[data]
source = "synthetic"
rows = 200
tasks = ["sort"]
"#;

const DPO: &str = r#"
[objective]
plugin = "dpo"

[train]
steps = 6
batch = { pairs = 8 }
optimizer = { lr = 1e-3 }
"#;

const PPO: &str = r#"
[objective]
plugin = "ppo"

[[reward]]
plugin = "length"
unit = "characters"
target = 4

[rollout]
prompts = 16
samples = 2
epochs = 2
max_new_tokens = 12

[train]
steps = 6
batch = { prompts = 8 }
optimizer = { lr = 1e-3 }
"#;

const SFT: &str = r#"
[objective]
plugin = "sft"

[train]
steps = 100
batch = { sequences = 16 }
optimizer = { lr = 1e-2 }
"#;

/// The experiment of this objective, with room for the beginnings of stories.
fn tiny(objective: &str) -> String {
    format!("{SMALL}{BASE}{objective}").replace("context = 48", "context = 96")
}

fn lab(objective: &str) -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", tiny(objective));
    lab
}

/// Candle, the f64 reference, and on Linux torch, which `cargo xtask torch` builds.
fn backends() -> Vec<&'static str> {
    [["candle", "reference"].as_slice(), if cfg!(target_os = "linux") { &["torch"] } else { &[] }].concat()
}

/// Catches a comparison that supports only running text, a reference that is another model on one backend, and rollouts whose
/// draws depend on the backend.
#[test]
fn the_same_experiment_gives_the_same_steps_on_every_backend() {
    for objective in [DPO, PPO] {
        let (lab, backends) = (lab(objective), backends().join(","));
        let args = ["compare", "tiny.toml", "--backends", &backends, "--steps", "4", "--rounds", "1", "--json"];
        let answer = lab.ask(&[args.as_slice(), &["--no-replay", "--no-plot"]].concat());
        let found: Value = serde_json::from_str(answer.succeeds()).expect("JSON");
        for other in &found["backends"].as_array().expect("backends")[1..] {
            let numbers = |key: &str| -> Vec<f64> {
                let all = other["agreement"][key].as_array().expect("a list");
                all.iter().map(|difference| difference.as_f64().unwrap_or(f64::INFINITY)).collect()
            };
            let (losses, norms) = (numbers("losses"), numbers("grad_norms"));
            assert_eq!((losses.len(), norms.len()), (4, 4), "{other}");
            assert!(norms[0] < 1e-5 && norms.iter().all(|norm| *norm < 1e-3), "{other}");
            // Of PPO the first loss is near 0: whitened advantages sum to nothing, and the value term is small.
            assert!(losses.iter().all(|loss| *loss < 1e-3), "{other}");
        }
    }
}

/// Catches draws that depend on the backend's own random numbers: in the first rollout every token is the same.
#[test]
fn the_first_rollout_is_the_same_on_every_backend() {
    let lab = lab(PPO);
    let drawn: Vec<Value> = backends()
        .into_iter()
        .map(|backend| {
            let (plugin, name) = (format!("backend.plugin={backend}"), format!("name={backend}"));
            let dtype = if backend == "reference" { "backend.dtype=f64" } else { "backend.dtype=f32" };
            lab.run(&[&plugin, &name, dtype, "train.steps=1"]).succeeds();
            let saved = Run(lab.at("runs").join(backend)).saved(1, "rollout.json");
            let state: Value = serde_json::from_slice(&saved).expect("JSON");
            let sequences = state["sequences"].as_array().expect("sequences");
            sequences.iter().map(|sequence| sequence["ids"].clone()).collect()
        })
        .collect();
    assert_eq!(drawn[0].as_array().map(Vec::len), Some(32));
    assert!(drawn.iter().all(|other| *other == drawn[0]), "{drawn:?}");
}

/// Catches sides exchanged, rows that a preference objective cannot read, prompts that are lost, and a file that is overwritten; and
/// bytes that are not a whole character, which become other tokens once written: answers of weights that have learned nothing.
#[test]
fn a_models_own_answers_become_pairs() {
    let lab = lab(PPO);
    // A fresh model answers with random bytes. They are not text, so no answer is left for a pair.
    let fresh = lab.ask(&["pairs", "tiny.toml", "--samples", "4", "--out", "fresh.jsonl"]);
    fresh.refuses(1, &["no row was written", "prompts    200", "bytes that are not valid text"]);
    assert!(!lab.at("fresh.jsonl").exists());
    lab.write("sft.toml", tiny(SFT));
    lab.ask(&["run", "sft.toml"]).succeeds();
    let shape =
        tiny("").split_once("[model]").and_then(|(_, rest)| rest.split_once("[data]")).expect("a model").0.to_owned();
    lab.write("tiny.toml", tiny(PPO).replace(&shape, "\nfrom = \"runs/sft\"\n\n"));
    let pairs = |more: &[&str]| lab.ask(&[&["pairs", "tiny.toml", "--samples", "4", "--json"], more].concat());
    let answer = pairs(&["--out", "own.jsonl"]);
    let found: Value = serde_json::from_str(answer.succeeds()).expect("JSON");
    let rows = json_lines(lab.at("own.jsonl"));
    assert_eq!(found["pairs"].as_u64(), Some(rows.len() as u64), "{found}");
    assert_eq!(found["prompts"], 200, "without the 20 that are held out: {found}");
    assert_eq!(found["pairs"].as_u64().zip(found["ties"].as_u64()).map(|(a, b)| a + b), Some(200), "{found}");
    let far = |row: &Value, side: &str| -(row[side].as_str().expect("text").chars().count() as f64 - 4.0).abs() / 4.0;
    for row in &rows {
        for side in ["chosen", "rejected"] {
            assert_eq!(row[format!("{side}_score")].as_f64(), Some(far(row, side)), "{row}");
        }
        assert!(far(row, "chosen") > far(row, "rejected"), "{row}");
    }
    pairs(&["--out", "own.jsonl"]).refuses(2, &["own.jsonl", "exists already"]);
    pairs(&["--out", "nowhere/own.jsonl"]).refuses(2, &["nowhere/own.jsonl", "its folder does not exist"]);
    lab.write(
        "tiny.toml",
        tiny(DPO).replace(
            "source = \"synthetic\"\nrows = 200\ntasks = [\"sort\"]",
            "path = \"own.jsonl\"\nsource = \"jsonl\"\nheld_out = 0.1",
        ),
    );
    lab.ask(&["check", "tiny.toml"]).succeeds();
    pairs(&["--out", "other.jsonl"]).refuses(2, &["rollout", "how prompts are answered"]);
}

/// Catches an answer that is lost, one without its end or its score, a reward that is required although nothing is ranked, rows that
/// `sft` cannot train on, a file that is overwritten, held-out prompts among those to train on, another number of answers than
/// the experiment's, and answers that are too long for `telos run`.
#[test]
fn a_models_own_answers_become_rows() {
    let lab = lab(SFT);
    lab.run(&[]).succeeds();
    let shape =
        tiny("").split_once("[model]").and_then(|(_, rest)| rest.split_once("[data]")).expect("a model").0.to_owned();
    let policy = tiny(PPO).replace(&shape, "\nfrom = \"runs/tiny\"\n\n");
    lab.write("policy.toml", &policy);
    let answers = |more: &[&str]| lab.ask(&[&["answers", "policy.toml", "--json"], more].concat());
    let found: Value =
        serde_json::from_str(answers(&["--samples", "2", "--out", "own.jsonl"]).succeeds()).expect("JSON");
    let rows = json_lines(lab.at("own.jsonl"));
    assert_eq!(found["prompts"], 200, "without the 20 that are held out: {found}");
    let counted = |key: &str| found[key].as_u64().expect("a count") as usize;
    assert_eq!((counted("answers"), rows.len() + counted("no_text")), (rows.len(), 400), "{found}");
    assert_eq!(counted("cut_off"), rows.iter().filter(|row| row["completion_ended"] == false).count(), "{found}");
    for row in &rows {
        let length = row["completion"].as_str().expect("text").chars().count() as f64;
        assert_eq!(row["score"].as_f64(), Some(-(length - 4.0).abs() / 4.0), "{row}");
    }
    answers(&["--out", "own.jsonl"]).refuses(2, &["own.jsonl", "exists already"]);
    // The number of answers is the experiment's, and the held-out prompts are others.
    let more = ["--held-out", "--out", "held-out.jsonl", "--set", "rollout.samples=3"];
    let found: Value = serde_json::from_str(answers(&more).succeeds()).expect("JSON");
    assert_eq!(found["prompts"], 20, "{found}");
    let held_out = json_lines(lab.at("held-out.jsonl"));
    assert!(held_out.iter().all(|row| rows.iter().all(|other| other["prompt"] != row["prompt"])));
    assert_eq!(held_out.len() + found["no_text"].as_u64().expect("a count") as usize, 60, "{found}");
    let long = ["--out", "long.jsonl", "--set", "rollout.max_new_tokens=9999"];
    answers(&long).refuses(2, &["rollout.max_new_tokens", "9999 tokens leave no room for a prompt"]);
    assert!(!lab.at("long.jsonl.partial").exists());
    let own = "path = \"own.jsonl\"\nsource = \"jsonl\"\nheld_out = 0.1";
    lab.write("tiny.toml", tiny(SFT).replace("source = \"synthetic\"\nrows = 200\ntasks = [\"sort\"]", own));
    lab.ask(&["check", "tiny.toml"]).succeeds();
}

/// Catches a command that keeps nothing when it is interrupted, one that does not say what it keeps, and rows of an interrupted
/// command that the next one overwrites.
#[test]
fn interrupted_answers_keep_the_rows_that_are_there() {
    let lab = lab(PPO);
    let args = ["answers", "tiny.toml", "--out", "own.jsonl", "--set", "data.rows=20000", "--samples", "8"];
    let partial = lab.at("own.jsonl.partial");
    let mut running = Running::start(&mut lab.command(&args));
    // Weights that have learned nothing write a text now and then.
    running.until(|| std::fs::metadata(&partial).is_ok_and(|file| file.len() > 0));
    running.signal(Signal::INT);
    let answer = running.answer();
    answer.refuses(130, &["of 20000 prompts are answered", "rows are kept in", "own.jsonl.partial"]);
    let rows = json_lines(&partial);
    assert!(!rows.is_empty() && !lab.at("own.jsonl").exists());
    lab.ask(&args).refuses(2, &["own.jsonl.partial exists already", "remove it first"]);
    assert_eq!(json_lines(&partial), rows);
}
