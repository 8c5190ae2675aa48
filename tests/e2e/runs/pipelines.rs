//! Pipelines through the built program: stages pass their models on, are resumed, rerun and refused.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    kills::{kill_at, with_enough_steps},
    lab::{Lab, Run},
};

/// Three stages of a few steps: a model of running text, instruction tuning from its end, more of that from the best.
const STAGES: &str = r#"
seed = 7

[backend]
plugin = "candle"
threads = 1

[data]
source = "synthetic"
rows = 200

[train]
batch = { tokens = 256 }
optimizer = { lr = 1e-2, weight_decay = 0.1 }

[eval]
every = 4

[checkpoint]
every = 4

[[stage]]
name = "pre"
model = { layers = 1, dim = 16, heads = 2, context = 64 }
objective = { plugin = "ce" }
train.steps = 10

[[stage]]
name = "sft"
model.from = "stage:pre"
objective = { plugin = "sft" }
train.steps = 30
eval.generate = 5

[[stage]]
name = "more"
model.from = "stage:sft/best"
objective = { plugin = "sft" }
train.steps = 6
"#;

const ENDS: [(&str, u64); 3] = [("pre", 10), ("sft", 30), ("more", 6)];

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", STAGES);
    lab
}

fn stage(lab: &Lab, name: &str) -> Run {
    Run(lab.at(&format!("runs/tiny/{name}")))
}

/// Fails unless every stage of both pipelines ended as in `ends` and left the same bits.
#[track_caller]
fn equal(ours: &Lab, theirs: &Lab, ends: [(&str, u64); 3]) {
    for (name, steps) in ends {
        stage(ours, name).has_steps(steps);
        stage(ours, name).equals(&stage(theirs, name), steps);
    }
}

/// Catches a stage that starts from fresh weights, from the first checkpoint or from the last instead of the best; a
/// table without a stage or with another's figures; and a resolved file that is another pipeline.
#[test]
fn stages_pass_on_their_weights_and_are_summarised_in_one_table() {
    let lab = lab();
    let answer = lab.run(&["stage.sft.train.optimizer.lr=3e-2"]);
    let out = answer.succeeds();
    let [pre, sft, more] = ENDS.map(|(name, _)| stage(&lab, name));
    assert_eq!(pre.receipt()["model"], json!({}));
    assert_eq!(sft.receipt()["model"]["sha256"], pre.weights_sha256(10).as_str());
    let best = sft.pointer("BEST").expect("a best checkpoint");
    assert_eq!(more.receipt()["model"]["sha256"], sft.weights_sha256(best).as_str());
    for part in ["== stage 1 of 3: pre (ce)", "== stage 2 of 3: sft (sft)", "== stage 3 of 3: more (sft)"] {
        assert!(answer.err.contains(part), "{part}: {answer:#?}");
    }
    let table: Vec<&str> = out.lines().skip_while(|line| !line.starts_with("stage ")).collect();
    assert!(table[0].contains("held-out loss"), "{out}");
    let losses = |run: &Run| {
        let losses = run.eval("eval/loss");
        format!("{:.3} -> {:.3}", losses[0], losses[losses.len() - 1])
    };
    for (line, (name, steps)) in table[1..].iter().zip(ENDS) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[2]), (name, steps.to_string().as_str()), "{out}");
        assert!(line.contains(&losses(&stage(&lab, name))), "{line}");
    }
    assert!(table[2].contains("exact_match 0.") && !table[1].contains("exact_match"), "{out}");
    // One lock and one token cache for all.
    assert!(lab.at("runs/plugins.lock").is_file() && lab.at("runs/.cache").is_dir());
    assert!(!lab.at("runs/tiny/plugins.lock").exists() && !lab.at("runs/tiny/.cache").exists());
    // The resolved file is the same pipeline again, and a stage's own an experiment.
    let again = lab.ask(&["run", "runs/tiny/pipeline.toml", "--name", "again", "--json"]);
    again.succeeds();
    let report = again.last_event();
    assert_eq!(
        (&report["name"], &report["ended"], &report["stages"][1]["steps"]),
        (&json!("again"), &json!(true), &json!(30))
    );
    assert_eq!(report["stages"][1]["figures"][0]["name"], "exact_match", "{report}");
    assert_eq!(report["stages"][2]["loss_after"].as_f64(), more.eval("eval/loss").last().copied());
    Run(lab.at("runs/again/more")).equals(&more, 6);
    lab.ask(&["run", "runs/tiny/sft/experiment.toml", "--resume"]).succeeds();
}

/// Catches a resume that restarts a stage, skips an interrupted one, or starts a later one from other weights.
#[test]
fn gotcha_42_a_pipeline_killed_in_the_second_stage_leaves_the_same_bits() {
    with_enough_steps(60, |steps| {
        let length = format!("stage.sft.train.steps={steps}");
        let undisturbed = lab();
        undisturbed.run(&[&length]).succeeds();
        let lab = lab();
        let killed = kill_at(&lab, &[&length], &stage(&lab, "sft"), [4, 12, 24]);
        let answer = lab.resume(&[&length]);
        answer.succeeds();
        if killed {
            assert!(answer.err.contains("pre (ce): already done"), "{answer:#?}");
            assert!(answer.err.contains("sft (sft), resumed"), "{answer:#?}");
        }
        let ends = [("pre", 10), ("sft", steps), ("more", 6)];
        equal(&lab, &undisturbed, ends);
        // A further resume has nothing to do; the table is printed nevertheless.
        let again = lab.resume(&[&length]);
        assert!(again.succeeds().contains("exact_match"), "{again:#?}");
        assert_eq!(again.err.matches("already done").count(), 3, "{again:#?}");
        equal(&lab, &undisturbed, ends);
        killed
    });
}

/// Catches a Ctrl-C that only ends the stage, or exits with another code.
#[test]
fn ctrl_c_stops_the_pipeline_with_130_and_resume_continues() {
    with_enough_steps(400, |steps| {
        let length = format!("stage.sft.train.steps={steps}");
        let lab = lab();
        let mut running = lab.start(&[&length], false);
        let sft = stage(&lab, "sft");
        running.until(|| sft.pointer("LATEST").is_some());
        running.signal(Signal::INT);
        let answer = running.answer();
        if answer.code == Some(0) || sft.pointer("LATEST") == Some(steps) {
            return false;
        }
        answer.refuses(130, &["interrupted: stopped in stage \"sft\" after step", "--resume"]);
        assert!(answer.out.contains("sft (not done)"), "{answer:#?}");
        assert!(!stage(&lab, "more").0.exists());
        lab.resume(&[&length]).succeeds();
        let undisturbed = self::lab();
        undisturbed.run(&[&length]).succeeds();
        sft.equals(&stage(&undisturbed, "sft"), steps);
        stage(&lab, "more").equals(&stage(&undisturbed, "more"), 6);
        true
    });
}

/// Catches runs that are lost, overwritten or mixed, stages that run although they were not selected, and results that differ.
#[test]
fn from_and_only_rerun_stages_and_keep_earlier_ones() {
    let lab = lab();
    let run = |args: &[&str]| lab.ask(&[&["run", "tiny.toml"], args].concat());
    run(&["--from", "sft"]).refuses(2, &["stage \"pre\" must be done first", "--from pre"]);
    assert!(!lab.at("runs").exists(), "a refused request left something");
    run(&["--only", "pre"]).succeeds();
    assert!(!stage(&lab, "sft").0.exists());
    run(&["--only", "more"]).refuses(2, &["stage \"sft\" must be done first"]);
    let answer = run(&["--from", "sft"]);
    answer.succeeds();
    assert!(!answer.err.contains("is now"), "{answer:#?}");
    run(&[]).refuses(2, &["\"tiny\" exists already", "--resume", "--from", "--name"]);
    run(&["--from", "stf"]).refuses(2, &["there is no stage \"stf\"", "did you mean `sft`?"]);
    let whole = self::lab();
    whole.run(&[]).succeeds();
    equal(&lab, &whole, ENDS);

    // Another rate for one stage: the earlier run is kept, and the later stage is reported to be based on it.
    let answer = run(&["--only", "sft", "--set", "stage.sft.train.optimizer.lr=5e-2"]);
    answer.succeeds();
    assert!(answer.err.contains("runs/tiny/sft is now runs/tiny/sft.1"), "{answer:#?}");
    assert!(
        answer.err.contains("\"more\" started from an earlier run of \"sft\"; rerun it with --from more"),
        "{answer:#?}"
    );
    stage(&lab, "sft.1").equals(&stage(&whole, "sft"), 30);
    assert!(stage(&lab, "sft").weights_sha256(30) != stage(&whole, "sft").weights_sha256(30));
    stage(&lab, "more").equals(&stage(&whole, "more"), 6);
    // And back: both are kept, and all is as it was.
    let answer = run(&["--from", "sft"]);
    answer.succeeds();
    assert!(!answer.err.contains("earlier run of"), "{answer:#?}");
    equal(&lab, &whole, ENDS);
    assert!(stage(&lab, "sft.2").0.is_dir() && stage(&lab, "more.1").0.is_dir());
}

/// Catches a changed file that trains on silently, and one that is refused although only later stages have changed.
#[test]
fn started_stages_must_be_unchanged_and_later_ones_may_change() {
    let lab = lab();
    lab.ask(&["run", "tiny.toml", "--only", "pre"]).succeeds();
    let changed = ["stage.pre.train.steps=11"];
    lab.resume(&changed)
        .refuses(2, &["stage \"pre\" has changed", "was: train.steps = 10", "is:  train.steps = 11", "--from pre"]);
    lab.ask(&["run", "tiny.toml", "--from", "sft", "--set", changed[0]]).refuses(2, &["stage \"pre\" has changed"]);
    lab.resume(&["stage.sft.train.steps=3"]).succeeds();
    stage(&lab, "sft").has_steps(3);
    Lab::resume(&self::lab(), &[]).refuses(2, &["there is no pipeline runs/tiny to resume"]);
}

/// Every mistake of every stage comes before the first stage trains, with its place; nothing is written.
#[test]
fn mistakes_of_all_stages_are_reported_before_training() {
    let lab = lab();
    let refused = |from: &str, to: &str, parts: &[&str]| {
        assert!(STAGES.contains(from), "the test replaces nothing");
        lab.write("tiny.toml", STAGES.replacen(from, to, 1));
        lab.run(&[]).refuses(2, parts);
        assert!(!lab.at("runs").exists(), "something was written");
    };
    refused("\"stage:pre\"", "\"stage:per\"", &["tiny.toml:30:7: model.from:", "did you mean `pre`?"]);
    refused("\"stage:sft/best\"", "\"stage:mor\"", &["tiny.toml:37:7: model.from:", "valid: `pre`, `sft`"]);
    refused(
        "generate = 5",
        "genrate = 5",
        &["tiny.toml:33:6: eval.genrate:", "in stage sft", "did you mean `generate`?"],
    );
    refused(
        "plugin = \"sft\" }\ntrain.steps = 6",
        "plugin = \"sft\", label_smoothing = 2 }\ntrian.steps = 6",
        &["2 mistakes", "tiny.toml:38:31: objective.label_smoothing:", "tiny.toml:39:1: trian:", "in stage more"],
    );
    refused("plugin = \"ce\"", "plugin = \"cee\"", &["tiny.toml:25:15:", "objective.plugin", "in stage pre"]);
    refused("seed = 7", "seed = 7\nsed = 8", &["1 mistake in tiny.toml", "tiny.toml:3:1: sed: unknown key"]);
    // Mistakes that depend on the data or the shape of the last stage are found before the first one trains.
    let shared = "[data]\nsource = \"synthetic\"\nrows = 200\n";
    let own = STAGES
        .replacen(shared, "", 1)
        .replace("objective =", "data = { source = \"synthetic\", rows = 200 }\nobjective =");
    let last = own.rfind("source = \"synthetic\", rows = 200").expect("the last stage's data");
    let own = own[..last].to_owned()
        + "source = \"jsonl\", path = \"no.jsonl\""
        + &own[last..].replacen("source = \"synthetic\", rows = 200", "", 1);
    lab.write("tiny.toml", own);
    lab.run(&[]).refuses(2, &["stage \"more\" cannot run", "no file or folder no.jsonl"]);
    assert!(!lab.at("runs").exists(), "something was written");
    let text = STAGES.replace("eval.generate = 5", "eval.generate = 5\neval.every = 0");
    lab.write("tiny.toml", text);
    lab.run(&[]).refuses(2, &["model.from:", "stage `sft` keeps no best checkpoint"]);
    lab.write("tiny.toml", STAGES);
    lab.ask(&["compare", "tiny.toml", "--backends", "candle"])
        .refuses(2, &["is a pipeline of stages", "experiment.toml"]);
    let one = Lab::tiny();
    one.ask(&["run", "tiny.toml", "--only", "a"]).refuses(2, &["is an experiment without stages"]);
}

/// Catches a stage that hides the mistakes of those after it, which start from its model; and an option that is refused without its
/// place if it is the only mistake.
#[test]
fn a_refused_stage_does_not_hide_the_mistakes_of_later_stages() {
    let lab = lab();
    let stages = r#"
data = { source = "synthetic", tasks = ["copy"], rows = 100, held_out_rows = 20 }
optimizer = { lr = 1e-3 }

[[stage]]
name = "first"
model = { layers = 1, dim = 16, heads = 2, context = 64 }
objective = { plugin = "grpo", delta = 1.1 }
reward = { plugin = "world" }
rollout = { prompts = 4, samples = 2, max_new_tokens = 8 }
train = { steps = 2, batch = { prompts = 4 }, optimizer = { lr = 1e-4 } }

[[stage]]
name = "second"
model.from = "stage:first"
teacher.from = "stage:first"
objective = { plugin = "distill", top_k = 999 }
train = { steps = 2, batch = { sequences = 4 }, optimizer = { lr = 1e-4 } }
"#;
    let stages = stages.replace("optimizer = { lr = 1e-3 }\n\n", "\n");
    lab.write("tiny.toml", &stages);
    let both =
        ["2 stages cannot run", "stage \"first\": ", "tiny.toml:7:", "stage \"second\": ", "reads 999 candidates"];
    for command in ["run", "check"] {
        lab.ask(&[command, "tiny.toml"]).refuses(2, &both);
    }
    lab.write("tiny.toml", stages.replace("top_k = 999", "top_k = 9"));
    lab.run(&[]).refuses(2, &["stage \"first\" cannot run", "delta", "tiny.toml:7:32: objective.delta"]);
    assert!(!lab.at("runs").exists(), "something was written");
}

/// Catches a failure without the name of its stage, and one after which earlier stages are lost.
#[test]
fn a_failed_stage_is_named_with_the_command_to_continue() {
    let lab = lab();
    let faulty = STAGES.replace(
        "objective = { plugin = \"sft\" }\ntrain.steps = 6",
        "objective = { plugin = \"panics-in-loss\", at_step = 3 }\ntrain.steps = 6",
    );
    lab.write("tiny.toml", faulty);
    lab.run(&[]).refuses(1, &["stage \"more\" (3 of 3) failed", "the loss that panics", "same command and --resume"]);
    stage(&lab, "sft").has_steps(30);
    stage(&lab, "more").has_steps(2);
    // A fix in a stage that has begun makes it another experiment: it is rerun.
    lab.write("tiny.toml", STAGES);
    lab.resume(&[]).refuses(2, &["stage \"more\" has changed", "--from more"]);
    lab.ask(&["run", "tiny.toml", "--from", "more"]).succeeds();
    let whole = self::lab();
    whole.run(&[]).succeeds();
    equal(&lab, &whole, ENDS);
}

/// Catches a check that trains, writes, or skips a stage because the one before has not been run.
#[test]
fn check_tries_every_stage_with_the_shapes_of_earlier_stages() {
    let lab = lab();
    let report = |answer: &crate::support::rig::Answer| serde_json::from_str::<Value>(answer.succeeds()).expect("JSON");
    let checked = report(&lab.ask(&["check", "tiny.toml", "--json"]));
    let stages = checked["stages"].as_array().expect("stages");
    let parameters: Vec<&Value> = stages.iter().map(|stage| &stage["parameters"]).collect();
    assert!(stages.len() == 3 && parameters[1] == parameters[0] && parameters[2] == parameters[0], "{checked}");
    assert_eq!(stages[0]["not_checked"], json!([]));
    let note = stages[2]["not_checked"][0].as_str().expect("a note");
    assert!(note.contains("model.from is stage \"sft\", which has not run yet"), "{note}");
    assert!(!lab.at("runs").exists(), "something was written");
    // A finished stage is evaluated itself: the loss is that of its weights.
    lab.run(&[]).succeeds();
    let checked = report(&lab.ask(&["check", "tiny.toml", "--json"]));
    assert_eq!(checked["stages"][1]["not_checked"], json!([]));
    assert_eq!(checked["stages"][1]["loss"].as_f64(), stage(&lab, "sft").train("loss").first().copied());
    // A shape that the last stage's data does not fit.
    lab.write("tiny.toml", STAGES.replace("train.steps = 6", "train = { steps = 6, context_schedule = [[0, 128]] }"));
    lab.ask(&["check", "tiny.toml"])
        .refuses(2, &["stage \"more\" cannot run", "128 tokens are longer than the model's context length of 64"]);
}
