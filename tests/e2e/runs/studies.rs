//! Studies through the built program: many runs from one file, interrupted, resumed, several at a time, with a run that fails.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    kills::with_enough_steps,
    lab::{Lab, Run, Running, TINY},
};

const SWEEP: &str = r#"
[sweep]
seeds = [1, 2]

[sweep.values]
"train.optimizer.lr" = [1e-3, 1e-2]
"#;

/// The runs of [`SWEEP`].
const RUNS: [&str; 4] = ["lr=0.001,seed=1", "lr=0.001,seed=2", "lr=0.01,seed=1", "lr=0.01,seed=2"];

fn lab(sweep: &str) -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", format!("{TINY}{sweep}"));
    lab
}

fn run(lab: &Lab, name: &str) -> Run {
    Run(lab.at(&format!("runs/tiny/{name}")))
}

fn plan(lab: &Lab) -> Value {
    serde_json::from_slice(&fs::read(lab.at("runs/tiny/study.json")).expect("a plan")).expect("JSON")
}

/// Catches a value or seed that does not reach its run, a run that differs from one of the same experiment alone, a table without
/// an arm or with another's numbers, and runs that share their bits with `--jobs`.
#[test]
fn a_study_is_its_runs_and_a_table() {
    let lab = lab(SWEEP);
    let answer = lab.run(&[]);
    let out = answer.succeeds();
    for (at, name) in RUNS.iter().enumerate() {
        run(&lab, name).has_steps(8);
        assert!(answer.err.contains(&format!("[{}/4] {name}: step 8, eval/loss", at + 1)), "{answer:#?}");
    }
    let plan = plan(&lab);
    assert_eq!(plan["keys"], json!(["train.optimizer.lr"]));
    assert_eq!(plan["arms"][1]["values"], json!({"train.optimizer.lr": 0.01}));
    assert_eq!(plan["arms"][1]["runs"][0], json!({"name": RUNS[2], "seed": 1}));
    // One of them alone.
    let alone = lab.ask(&["run", "runs/tiny/experiments/lr=0.01,seed=2.toml", "--name", "alone"]);
    alone.succeeds();
    Run(lab.at("runs/alone")).equals(&run(&lab, RUNS[3]), 8);
    // The table: mean over the two seeds, the better arm first.
    let last = |name: &str| run(&lab, name).eval("eval/loss").last().copied().expect("an evaluation");
    let mean = |arm: usize| (last(RUNS[2 * arm]) + last(RUNS[2 * arm + 1])) / 2.0;
    let best = if mean(0) < mean(1) { "lr=0.001" } else { "lr=0.01" };
    let table: Vec<&str> = out.lines().skip_while(|line| !line.starts_with("arm ")).collect();
    assert!(table[1].starts_with(best) && table[1].contains(" ± ") && table[1].contains("2 done"), "{out}");
    assert!(out.contains(&format!("best by eval/loss (smaller is better): {best}\n")), "{out}");
    assert!(out.contains("4 of 4 runs complete"), "{out}");
    // The same with two at a time, as JSON.
    let two = self::lab(SWEEP);
    let answer = two.ask(&["run", "tiny.toml", "--jobs", "2", "--json"]);
    answer.succeeds();
    RUNS.iter().for_each(|name| run(&two, name).equals(&run(&lab, name), 8));
    let summary = answer.json();
    assert_eq!((&summary["best"], &summary["arms"][0]["estimate"]["n"]), (&json!(best), &json!(2)));
    // The page, the figure and the list.
    let page = fs::read_to_string(lab.at("runs/tiny/report.html")).expect("a page");
    for part in ["Study: tiny", "eval/loss by train.optimizer.lr", "best by eval/loss", "lr=0.01,seed=2"] {
        assert!(page.contains(part), "{part}");
    }
    lab.ask(&["plot", "runs/tiny", "--metric", "eval/loss", "--out", "loss.svg"]).succeeds();
    let figure = fs::read_to_string(lab.at("loss.svg")).expect("a figure");
    assert!(figure.contains("mean of 2 seeds"), "{figure}");
    let listed = lab.ask(&["runs"]);
    assert!(
        listed.succeeds().contains(&format!("study tiny: 4 of 4 runs complete; best by min:eval/loss: {best}")),
        "{listed:#?}"
    );
    RUNS.iter().for_each(|name| assert!(listed.succeeds().contains(&format!("tiny/{name}")), "{listed:#?}"));
}

/// Starts `telos run tiny.toml`, with further arguments.
fn start(lab: &Lab, steps: &str, more: &[&str]) -> Running {
    let args: Vec<&str> = ["run", "tiny.toml", "--set", steps].iter().chain(more).copied().collect();
    Running::start(&mut lab.command(&args))
}

/// Catches a run that is started again or continued from another state, one that outlives the study that is killed, and a second
/// process that runs the same study.
#[test]
fn a_study_that_is_killed_and_interrupted_leaves_the_same_bits() {
    with_enough_steps(40, |steps| {
        let length = format!("train.steps={steps}");
        let undisturbed = lab(SWEEP);
        undisturbed.run(&[&length]).succeeds();
        let lab = lab(SWEEP);
        let saved = |name: &'static str, at: u64| {
            let run = run(&lab, name);
            move || run.pointer("LATEST").is_some_and(|step| step >= at)
        };
        // Killed in the second run, with its supervising process alone: nothing may be left running.
        let mut running = start(&lab, &length, &[]);
        let mut disturbed = running.until(saved(RUNS[1], 4));
        if disturbed {
            // It waits a moment for the other process, which may then have ended.
            let second = lab.resume(&[&length]);
            disturbed = second.code != Some(0);
            if disturbed {
                second.refuses(1, &["is running the study in"]);
            }
        }
        running.signal(Signal::KILL);
        disturbed &= running.answer().code.is_none();
        // Interrupted in the third.
        let mut running = start(&lab, &length, &["--resume"]);
        disturbed &= running.until(saved(RUNS[2], 8));
        running.signal(Signal::INT);
        let answer = running.answer();
        disturbed &= answer.code == Some(130);
        if disturbed {
            answer.refuses(
                130,
                &["the study was stopped", "continue with the same command and --resume", "of them done already"],
            );
            assert!(!run(&lab, RUNS[3]).0.exists(), "a run was started after the interruption");
        }
        let answer = lab.resume(&[&length]);
        answer.succeeds();
        for name in RUNS {
            run(&lab, name).has_steps(steps);
            run(&lab, name).equals(&run(&undisturbed, name), steps);
        }
        // Without --resume it is refused, and there is nothing left to do with it.
        lab.run(&[&length]).refuses(2, &["exists already", "--resume"]);
        let again = lab.resume(&[&length]);
        assert!(again.succeeds().contains("4 of 4 runs complete") && !again.err.contains("[1/"), "{again:#?}");
        disturbed
    });
}

/// Catches a failed run that ends the study, is not named, is averaged, or is not run again.
#[test]
fn a_run_that_fails_stops_no_other() {
    // The second value gives a loss that is not finite.
    let sweep = "[sweep.values]\n\"train.optimizer.lr\" = [1e-3, 1e30, 1e-2]\n";
    let lab = lab(sweep);
    lab.write("tiny.toml", format!("{TINY}{sweep}").replace("steps = 8", "steps = 8\nmax_bad_steps = 2"));
    let answer = lab.run(&[]);
    let advice = "Either remove the values from [sweep] and resume, or keep them";
    answer.refuses(1, &["1 of 3 runs failed", "lr=1e30 (train.optimizer.lr = 1e+30): ", advice, "--resume"]);
    assert!(answer.out.contains("2 of 3 runs complete, 1 failed"), "{answer:#?}");
    // Its evaluation of step 0 is not its result.
    let row = answer.out.lines().find(|line| line.starts_with("lr=1e30")).expect("a row");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[1..4], ["-", "-", "-"], "{row}");
    assert!(row.ends_with("1 failed") && !answer.out.contains("smaller is better): lr=1e30"), "{answer:#?}");
    run(&lab, "lr=0.001").has_steps(8);
    run(&lab, "lr=0.01").has_steps(8);
    assert!(plan(&lab)["failed"]["lr=1e30"].is_string(), "{}", plan(&lab));
    let page = fs::read_to_string(lab.at("runs/tiny/report.html")).expect("a page");
    assert!(page.contains("failed: lr=1e30"));
    // It is tried again, and only it.
    let again = lab.resume(&[]);
    again.refuses(1, &["[1/1] lr=1e30: failed", "1 of 3 runs failed"]);
    // Its value may be removed, but not one whose run is done.
    let swept = |values: &str| format!("sweep.values={{\"train.optimizer.lr\"={values}}}");
    lab.resume(&[&swept("[1e-3]")]).refuses(2, &["1 runs of the study", "no longer in its plan", "lr=0.01"]);
    let without = lab.resume(&[&swept("[1e-3, 1e-2]")]);
    assert!(without.succeeds().contains("2 of 2 runs complete") && !without.out.contains("1e30"), "{without:#?}");
    assert_eq!(plan(&lab)["failed"], Value::Null);
}

/// Catches a misspelt metric that is found only after all runs have trained, and a study that then ends as if all were well.
#[test]
fn a_metric_that_no_run_reports_is_refused_before_the_first_step() {
    let lab = lab(SWEEP);
    let sets = ["sweep.metric=\"max:eval/tokn_accuracy\""];
    let answer = lab.run(&sets);
    let meant = "sweep.metric: no evaluation reports \"eval/tokn_accuracy\"; did you mean \"eval/token_accuracy\"?";
    answer.refuses(2, &[meant]);
    assert!(!lab.at("runs/tiny").exists());
    lab.ask(&["check", "tiny.toml", "--set", sets[0]]).refuses(2, &["sweep.metric", "did you mean"]);
    // A metric of steps, and the one that decides about rungs.
    let lab = self::lab(SWEEP);
    lab.run(&["sweep.metric=\"min:los\""]).refuses(2, &["sweep.metric: no step reports \"los\"", "\"loss\""]);
    let lab = self::lab(SWEEP);
    let rungs = "sweep.halving={first_rung=4,metric=\"max:eval/acuracy\"}";
    lab.run(&[rungs]).refuses(2, &["sweep.halving.metric: no evaluation reports"]);
    lab.ask(&["check", "tiny.toml", "--set", rungs]).refuses(2, &["sweep.halving.metric: no evaluation reports"]);
}

/// Catches an arm that is promoted although it is worse, one that is trained on although it was stopped, and a promoted run whose bits
/// differ from a run that was never paused.
#[test]
fn halving_continues_the_best_arms_from_their_checkpoints() {
    let sweep = "[sweep]\nseeds = [1, 2]\nhalving = { first_rung = 4, factor = 2 }\n[sweep.values]\n\
                 \"train.optimizer.lr\" = [1e-9, 1e-3, 1e-2, 1e-8]\n";
    let lab = lab(sweep);
    let length = "train.steps=16";
    let answer = lab.run(&[length]);
    answer.succeeds();
    assert!(
        answer.err.contains("rung of 4 steps, min:eval/loss: 2 of 4 arms continue: lr=0.001; lr=0.01"),
        "{answer:#?}"
    );
    assert!(answer.err.contains("rung of 8 steps, min:eval/loss: 1 of 2 arms continue: lr=0.01\n"), "{answer:#?}");
    for (arm, steps) in [("lr=1e-9", 4), ("lr=0.001", 8), ("lr=0.01", 16), ("lr=1e-8", 4)] {
        (1..=2).for_each(|seed| run(&lab, &format!("{arm},seed={seed}")).has_steps(steps));
    }
    assert!(answer.out.contains("best by eval/loss (smaller is better): lr=0.01\n"), "{answer:#?}");
    assert!(answer.out.contains("2 paused"), "{answer:#?}");
    lab.ask(&["run", "runs/tiny/experiments/lr=0.01,seed=1.toml", "--name", "alone"]).succeeds();
    Run(lab.at("runs/alone")).equals(&run(&lab, "lr=0.01,seed=1"), 16);
    // A resume decides as before.
    let again = lab.resume(&[length]);
    again.succeeds();
    run(&lab, "lr=1e-9,seed=1").has_steps(4);
}

/// Catches stages that are run for every arm, and runs that start from other weights than those of the stage.
#[test]
fn the_stages_before_the_last_are_run_once() {
    let lab = Lab::new();
    let stages = r#"
seed = 7
data = { source = "synthetic", rows = 200 }
[backend]
threads = 1
[train]
batch = { tokens = 256 }
optimizer = { lr = 1e-2 }
[sweep]
seeds = [1, 2]
metric = "eval/loss"
[[stage]]
name = "pre"
model = { layers = 1, dim = 16, heads = 2, context = 64 }
objective = { plugin = "ce" }
train.steps = 4
[[stage]]
name = "sft"
model.from = "stage:pre"
objective = { plugin = "sft" }
train.steps = 6
"#;
    lab.write("tiny.toml", stages);
    lab.run(&[]).succeeds();
    let pre = run(&lab, "pre");
    for name in ["seed=1", "seed=2"] {
        assert_eq!(run(&lab, name).receipt()["model"]["sha256"], pre.weights_sha256(4).as_str());
        run(&lab, name).has_steps(6);
    }
    assert!(run(&lab, "seed=1").bytes("metrics.jsonl") != run(&lab, "seed=2").bytes("metrics.jsonl"));
    // A misspelt metric is found before the stage is trained.
    let misspelt = Lab::new();
    misspelt.write("tiny.toml", stages.replace("metric = \"eval/loss\"", "metric = \"min:eval/lss\""));
    misspelt.run(&[]).refuses(2, &["sweep.metric: no evaluation reports \"eval/lss\"", "did you mean \"eval/loss\"?"]);
    assert!(!misspelt.at("runs/tiny").exists());
    // A run that fails in its stage is reported once, and no run is started.
    let broken = Lab::new();
    broken.write(
        "tiny.toml",
        stages.replace("optimizer = { lr = 1e-2 }", "optimizer = { lr = 1e30 }\nmax_bad_steps = 1"),
    );
    broken.run(&[]).refuses(1, &["stage \"pre\" failed", "--resume"]);
    assert!(!run(&broken, "seed=1").0.exists());
}

/// Catches a study that trains before all of its runs are checked, options without effect, and a plan that lost runs.
#[test]
fn studies_are_refused_before_anything_is_written() {
    let lab = lab("[sweep.values]\n\"train.optimizer.lr\" = [1e-3, \"high\"]\n\"objective.label_smoothin\" = [0.1]\n");
    let refused = lab.run(&[]);
    refused.refuses(
        2,
        &["2 mistakes in tiny.toml", "train.optimizer.lr: expected a number", "objective.label_smoothin: unknown key"],
    );
    assert!(!lab.at("runs/tiny").exists());
    let lab =
        self::lab("[sweep.values]\n\"train.optimizer.lr\" = [1e-2]\n\"train.optimizer.weight_decay\" = [0.1, 0.2]\n");
    lab.ask(&["run", "tiny.toml", "--from", "x"]).refuses(2, &["--from and --only are for pipelines"]);
    lab.ask(&["run", "tiny.toml", "--pause-after", "2"]).refuses(2, &["--pause-after is for single experiments"]);
    lab.ask(&["run", "tiny.toml", "--resume"]).refuses(2, &["there is no study"]);
    lab.ask(&["compare", "tiny.toml", "--backends", "candle,reference"]).refuses(2, &["is a study of several runs"]);
    // Equal only once defaults are filled in.
    lab.write(
        "tiny.toml",
        format!(
            "{TINY}[sweep]\nmethod = \"list\"\n[[sweep.arm]]\n\"train.optimizer.kind\" = \"adamw\"\n[[sweep.arm]]\n"
        ),
    );
    lab.run(&[]).refuses(2, &["the runs kind=adamw and default are equal"]);
    lab.write("tiny.toml", format!("{TINY}{SWEEP}"));
    lab.run(&["sweep.halving.first_rung=3"]).refuses(2, &["eval/loss is not measured by step 3"]);
    assert!(!lab.at("runs/tiny").exists());
    lab.run(&["train.steps=1"]).succeeds();
    lab.resume(&["train.steps=1", "sweep.seeds=[1]"]).refuses(2, &["2 runs of the study", "no longer in its plan"]);
    // Seeds may be added.
    let more = lab.resume(&["train.steps=1", "sweep.seeds=[1, 2, 3]"]);
    assert!(more.succeeds().contains("6 of 6 runs complete"), "{more:#?}");
    // A study without [sweep], and a single run that pauses.
    lab.write("tiny.toml", TINY);
    let seeds = lab.ask(&["run", "tiny.toml", "--seeds", "2", "--name", "seeds", "--set", "train.steps=1"]);
    assert!(seeds.succeeds().contains("2 of 2 runs complete") && lab.at("runs/seeds/seed=8").is_dir(), "{seeds:#?}");
    lab.ask(&["run", "tiny.toml", "--name", "whole"]).succeeds();
    lab.ask(&["run", "tiny.toml", "--name", "paused", "--pause-after", "3"]).succeeds();
    assert_eq!(Run(lab.at("runs/paused")).pointer("LATEST"), Some(3));
    lab.ask(&["run", "tiny.toml", "--name", "paused", "--resume"]).succeeds();
    Run(lab.at("runs/paused")).equals(&Run(lab.at("runs/whole")), 8);
}
