//! Mistakes that must be found before the first step, and requests after the last one.

use std::fs;

use serde_json::{Value, json};

use super::case;
use crate::support::lab::{Lab, ROWS, Run, SMALL, close, some_text, with_sets};

fn run_of(lab: &Lab, name: &str) -> Run {
    Run(lab.at(&format!("runs/{name}")))
}

fn jsonl(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().map(|row| row.to_string() + "\n").collect()
}

/// Catches a column that is checked only when its row is used, hours into a run whose data may no longer change.
#[test]
fn reward_column_missing() {
    let lab = case("reward-column-missing");
    let parts = ["rows.jsonl:30: `answer`: missing", "reward \"exact\" reads the column `answer` of every row"];
    lab.ask(&["check", "case.toml"]).refuses(2, &parts);
    lab.ask(&["run", "case.toml"]).refuses(2, &parts);
    assert!(!lab.at("runs").exists(), "something was written");
    fs::copy(lab.at("good.jsonl"), lab.at("rows.jsonl")).expect("copied");
    lab.ask(&["run", "case.toml", "--set", "train.steps=2"]).succeeds();
}

const JUDGED: &str = r#"
[objective]
plugin = "ppo"

[[reward]]
plugin = "exact"
column = "solution"

[rollout]
prompts = 2
max_new_tokens = 4

[train]
steps = 2
batch = { prompts = 2 }
optimizer = { lr = 1e-3 }
"#;

/// Catches a check of only the default's column, of only the training rows, and of only the presence.
#[test]
fn declared_columns_are_checked_in_every_row_by_name_and_value() {
    let lab = Lab::new();
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{JUDGED}"));
    let rows = |bad: Value, at: usize| {
        let row = |i: usize| json!({"prompt": format!("say {i}: "), "solution": i, "answer": null});
        let mut rows: Vec<Value> = (0..30).map(row).collect();
        rows[at]["solution"] = bad;
        lab.write("rows.jsonl", jsonl(rows));
    };
    // Some of these rows are held out, whichever they are.
    for at in 0..30 {
        rows(json!(null), at);
        let place = format!("rows.jsonl:{}: `solution`: expected a string or a number, found null", at + 1);
        if at % 7 == 0 {
            lab.ask(&["check", "tiny.toml"]).refuses(2, &[&place, "reward.0.column"]);
        }
    }
    rows(json!("  "), 11);
    lab.ask(&["check", "tiny.toml"])
        .refuses(2, &["rows.jsonl:12: `solution`: expected a string or a number, found an empty string"]);
    rows(json!("11"), 11);
    lab.run(&[]).succeeds();
    // Only the plugin can detect this mistake in a row: its pattern matches no answer there.
    let pattern = ["reward.answer_pattern=\"^[0-9]+$\"", "train.steps=1"];
    rows(json!("eleven"), 11);
    lab.run(&[&pattern[..], &["name=other"]].concat()).refuses(2, &["rows.jsonl:12", "answer_pattern", "\"eleven\""]);
    assert!(!lab.at("runs/other").exists(), "something was written");
}

/// Catches training rows that are refused because of a column that is only needed to score held-out answers.
#[test]
fn rows_without_scored_answers_need_no_answer_column() {
    let lab = Lab::new();
    let sft = "\n[objective]\nplugin = \"sft\"\n\n[[reward]]\nplugin = \"exact\"\n\n[eval]\ngenerate = 3\n\n[train]\n\
               steps = 1\nbatch = { sequences = 2 }\noptimizer = { lr = 1e-3 }\n";
    let data = "\n[data]\nsource = \"jsonl\"\npath = \"rows.jsonl\"\neval_path = \"held.jsonl\"\n";
    lab.write("tiny.toml", format!("{SMALL}{data}{sft}"));
    lab.write("rows.jsonl", jsonl((0..4).map(|i| json!({"prompt": format!("{i}: "), "completion": "a"}))));
    let held = |answer: Value| {
        let row = json!({"prompt": "h: ", "completion": "a", "answer": answer});
        lab.write("held.jsonl", jsonl([row]));
    };
    held(json!(null));
    lab.run(&[]).refuses(2, &["held.jsonl:1: `answer`: expected "]);
    held(json!("a"));
    lab.run(&[]).succeeds();
}

/// Catches a finished run that cannot be continued, one that continues with empty moments or from the start of the data, and a
/// receipt that does not record it.
#[test]
fn more_steps() {
    let lab = case("more-steps");
    lab.ask(&["run", "case.toml"]).succeeds();
    let more = ["run", "case.toml", "--resume", "--set", "train.steps=4"];
    let answer = lab.ask(&more);
    answer.succeeds();
    assert!(answer.err.contains("note: changed on resuming: train.steps: 2 is now 4"), "{answer:#?}");
    let changed = json!([{"after_step": 2, "changes": ["train.steps: 2 is now 4"]}]);
    assert_eq!(run_of(&lab, "case").receipt()["changed"], changed);
    lab.ask(&["run", "case.toml", "--name", "whole", "--set", "train.steps=4"]).succeeds();
    run_of(&lab, "case").equals(&run_of(&lab, "whole"), 4);
    // The new length is the run's own from now on.
    let again = lab.ask(&more);
    assert!(again.succeeds().contains("4 steps") && again.err.contains("nothing is left to do"), "{again:#?}");
    let fewer = ["run", "case.toml", "--resume", "--set", "train.steps=3"];
    lab.ask(&fewer).refuses(2, &["train.steps: 3 steps, but 4 are already done"]);
    let other = ["run", "case.toml", "--resume", "--set", "train.steps=5", "--set", "train.optimizer.lr=1e-2"];
    lab.ask(&other).refuses(
        2,
        &[
            "was: train.optimizer.lr = 0.001",
            "is:  train.optimizer.lr = 0.01",
            "What may change on resuming: the number of train.steps",
        ],
    );
    let epochs = fs::read_to_string(lab.at("case.toml")).expect("read").replace("steps = 2", "epochs = 2");
    lab.write("case.toml", epochs);
    lab.ask(&["run", "case.toml", "--resume"]).refuses(2, &["was: train.steps = 4", "is:  train.epochs = 2"]);
}

/// Catches a schedule that changes without a report, one of the old length, and keys that change nothing but are refused.
#[test]
fn extending_a_scheduled_run_uses_the_new_schedule_and_reports_it() {
    let lab = case("more-steps");
    let run = |name: &str, sets: &[&str], resume: bool| {
        let mut args = vec!["run", "case.toml", "--name", name, "--set", "train.schedule.kind=\"cosine\""];
        args.extend(resume.then_some("--resume"));
        lab.ask(&with_sets(&args, sets))
    };
    run("case", &[], false).succeeds();
    let answer = run("case", &["train.steps=4", "checkpoint.keep=7"], true);
    answer.succeeds();
    let curve = "train.schedule: the cosine schedule depends on the length: from step 3 on it is that of 4 steps, which begins at a \
                 learning rate of 5.000e-4 where it had ended";
    assert!(answer.err.contains(curve), "{answer:#?}");
    let receipt = run_of(&lab, "case").receipt();
    let lines = receipt["changed"][0]["changes"].as_array().expect("lines");
    for line in ["train.steps: 2 is now 4", "checkpoint.keep: 3 is now 7", curve] {
        assert!(lines.iter().any(|note| note == line), "{line}: {receipt:#}");
    }
    run("whole", &["train.steps=4"], false).succeeds();
    let (own, whole) = (run_of(&lab, "case").train("lr"), run_of(&lab, "whole").train("lr"));
    assert_eq!(own[2..], whole[2..], "{own:?} {whole:?}");
}

/// Catches epochs that are counted from the resume, and a last short window that is filled up with rows of the next epoch.
#[test]
fn more_epochs_equal_those_of_a_longer_run() {
    let lab = case("epoch-wraps");
    let batch = "train.batch={sequences=3}";
    let run = |name: &str, epochs: &str, resume: bool| {
        let args = ["run", "case.toml", "--name", name, "--set", batch, "--set", epochs];
        lab.ask(&args.into_iter().chain(resume.then_some("--resume")).collect::<Vec<_>>()).succeeds();
        run_of(&lab, name)
    };
    run("case", "train.epochs=1", false);
    let own = run("case", "train.epochs=3", true);
    own.equals(&run("whole", "train.epochs=3", false), 9);
    assert_eq!(own.train("tokens"), [18.0, 18.0, 6.0].repeat(3));
}

/// Catches more steps for a stage that others were made from, and none for the last one.
#[test]
fn the_last_stage_of_a_pipeline_may_be_longer() {
    let lab = case("more-steps");
    let stage = |name: &str, from: &str| {
        format!("[[stage]]\nname = \"{name}\"\n{from}\nobjective = {{ plugin = \"sft\" }}\ntrain.steps = 2\n\n")
    };
    let head = "data = { source = \"jsonl\", path = \"rows.jsonl\", held_out = 0.0 }\ntrain = { batch = { sequences = 1 }, \
                optimizer.lr = 1e-3 }\n\n";
    let model = "model = { layers = 1, dim = 16, heads = 2, context = 64 }";
    lab.write("p.toml", format!("{head}{}{}", stage("a", model), stage("b", "model.from = \"stage:a\"")));
    lab.ask(&["run", "p.toml"]).succeeds();
    let resume = |set: &str| lab.ask(&["run", "p.toml", "--resume", "--set", set]);
    resume("stage.a.train.steps=3")
        .refuses(2, &["stage \"a\" has changed", "was: train.steps = 2", "is:  train.steps = 3", "--from a"]);
    resume("stage.b.train.steps=5").succeeds();
    run_of(&lab, "p/b").has_steps(5);
    run_of(&lab, "p/a").has_steps(2);
}

/// One pass over 7 rows of 6 positions. Catches a step that is filled up from further passes.
#[test]
fn epoch_wraps() {
    let lab = case("epoch-wraps");
    lab.ask(&["run", "case.toml"]).succeeds();
    assert_eq!(run_of(&lab, "case").train("tokens"), [42.0]);
}

/// Catches a short last window that is divided by the size of a full one, and epochs that are joined in one window.
#[test]
fn every_epoch_reads_every_row_once_and_its_last_step_has_its_own_normaliser() {
    let lab = case("epoch-wraps");
    let run = |name: &str, sets: &[&str]| {
        let args = ["run", "case.toml", "--name", name, "--set", "train.optimizer.lr=1e-300"];
        lab.ask(&with_sets(&args, sets)).succeeds();
        run_of(&lab, name)
    };
    let whole = run("whole", &[]).train("loss")[0];
    let cut = run("cut", &["train.batch={sequences=4}"]);
    assert_eq!(cut.train("tokens"), [24.0, 18.0]);
    let loss = cut.train("loss");
    close((4.0 * loss[0] + 3.0 * loss[1]) / 7.0, whole, 1e-6, "the mean over all rows");
    assert_eq!(run("two", &["train.epochs=2"]).train("tokens"), [42.0, 42.0]);
    assert_eq!(run("half", &["train.epochs=1.5", "train.batch={sequences=2}"]).train("tokens").len(), 6);
    assert_eq!(run("tokens", &["train.batch={tokens=600}"]).train("tokens"), [42.0]);
    // Steps continue from one epoch into the next, as usual.
    let steps = fs::read_to_string(lab.at("case.toml")).expect("read").replace("epochs = 1", "steps = 1");
    lab.write("case.toml", steps);
    assert_eq!(run("steps", &[]).train("tokens"), [600.0]);
}

/// Catches pairs, prompts and running text that are read more or less than once.
#[test]
fn pairs_prompts_and_text_are_read_once_an_epoch_too() {
    let lab = Lab::new();
    let rows = (0..7).map(|i| json!({"prompt": format!("q{i}: "), "chosen": "yes", "rejected": "no!"}));
    lab.write("rows.jsonl", jsonl(rows));
    lab.write("some.txt", some_text(100));
    let rows = "\n[data]\nsource = \"jsonl\"\npath = \"rows.jsonl\"\nheld_out = 0.0\n";
    let text = "\n[data]\nsource = \"text\"\npath = \"some.txt\"\nheld_out = 0.0\n";
    let run = |name: &str, data: &str, more: &str, batch: &str| {
        let train = format!("\n[train]\nepochs = 1\nbatch = {batch}\noptimizer = {{ lr = 1e-3 }}\n");
        lab.write(&format!("{name}.toml"), format!("{SMALL}{data}{more}{train}"));
        lab.ask(&["check", &format!("{name}.toml")]).succeeds();
        lab.ask(&["run", &format!("{name}.toml")]).succeeds();
        run_of(&lab, name)
    };
    let dpo = "\n[objective]\nplugin = \"dpo\"\n";
    // "qN: " and an answer of three bytes are 7 positions, of which a pair has twice as many.
    assert_eq!(run("pairs", rows, dpo, "{ pairs = 4 }").train("tokens"), [56.0, 42.0]);
    assert_eq!(run("more-pairs", rows, dpo, "{ pairs = 100 }").train("tokens"), [98.0]);
    let ppo = "\n[objective]\nplugin = \"ppo\"\n\n[[reward]]\nplugin = \"length\"\n\n[rollout]\nprompts = 4\nepochs = 2\n\
               max_new_tokens = 4\n";
    // Two rollouts of 4 and 3 prompts, two passes over each in steps of 2 prompts.
    assert_eq!(run("prompts", rows, ppo, "{ prompts = 2 }").train("loss").len(), 8);
    let ce = "\n[objective]\nplugin = \"ce\"\n";
    let tokens = fs::metadata(lab.at("some.txt")).expect("a file").len() as f64;
    let read: Vec<f64> = run("text", text, ce, "{ tokens = 100 }").train("tokens");
    // Nothing precedes the first token; the end of the text is predicted too.
    assert_eq!(read.iter().sum::<f64>(), tokens, "{read:?}");
    assert_eq!(run("more-text", text, ce, "{ tokens = 100000 }").train("tokens"), [tokens]);
    let schedule = ["run", "text.toml", "--name", "no", "--set", "train.context_schedule=[[0,8]]"];
    lab.ask(&schedule).refuses(2, &["train.context_schedule", "contradicts train.epochs"]);
}

/// Catches fixed data that the run which found the fault can never use, and other data that is accepted as
/// fixed.
#[test]
fn gotcha_52_a_run_resumes_over_fixed_rows_if_requested() {
    let lab = case("more-steps");
    lab.ask(&["run", "case.toml"]).succeeds();
    let rows = fs::read_to_string(lab.at("rows.jsonl")).expect("read");
    lab.write("rows.jsonl", rows.replacen("\"completion\": \"a\"", "\"completion\": \"bcd\"", 1));
    let resume = ["run", "case.toml", "--resume", "--set", "train.steps=6"];
    lab.ask(&resume).refuses(2, &["the run began with other data or weights", "--fixed-rows"]);
    let fixed = [&resume[..], &["--fixed-rows"]].concat();
    // A row that was moved is not a row that was fixed.
    let now = fs::read_to_string(lab.at("rows.jsonl")).expect("read");
    let mut lines: Vec<&str> = now.lines().collect();
    lines.swap(1, 2);
    lab.write("rows.jsonl", lines.join("\n") + "\n");
    lab.ask(&fixed).refuses(2, &["training row", "is now where row", "restore the order of the rows"]);
    lab.write("rows.jsonl", &now);
    let answer = lab.ask(&fixed);
    answer.succeeds();
    assert!(answer.err.contains("note: --fixed-rows: 1 of 5 training rows were fixed ("), "{answer:#?}");
    let run = run_of(&lab, "case");
    run.has_steps(6);
    // "qN: a" has 5 positions, "q0: bcd" two more; one step reads one row.
    let tokens = run.train("tokens");
    assert!(tokens[..2] == [5.0, 5.0] && tokens[2..].iter().filter(|count| **count == 7.0).count() <= 2, "{tokens:?}");
    let changed = run.receipt()["changed"].to_string();
    assert!(changed.contains("data[rows.jsonl].sha256") && changed.contains("train.steps: 2 is now 6"), "{changed}");
    lab.write("rows.jsonl", rows + "{\"prompt\": \"one more: \", \"completion\": \"a\"}\n");
    let more = [&fixed[..], &["--set", "train.steps=8"]].concat();
    lab.ask(&more).refuses(2, &["the run began with other data or weights"]);
    // A run from before rows were noted one by one.
    fs::remove_file(run.0.join("rows.txt")).expect("removed");
    lab.write("rows.jsonl", now.replacen("\"completion\": \"a\"", "\"completion\": \"cd\"", 1));
    let answer = lab.ask(&more);
    answer.succeeds();
    assert!(answer.err.contains("has no rows.txt, so whether rows were moved is not known"), "{answer:#?}");
    lab.ask(&["run", "case.toml", "--fixed-rows"]).refuses(2, &["--resume"]);
}
