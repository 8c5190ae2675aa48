//! Process reward models and attention masks in whole runs: what reaches the loss, what the saved model records, what is refused.

use std::fs;

use serde_json::{Value, json};

use crate::support::lab::{Dice, Lab, ROWS, Run, SMALL, close, json_lines};

/// A process reward model.
const PRM: &str = r#"
[objective]
plugin = "prm"

[train]
steps = 60
batch = { sequences = 16 }
optimizer = { lr = 1e-2 }

[eval]
every = 60
"#;

/// A prefix language model.
const PREFIX: &str = r#"
[objective]
plugin = "sft"
attention = "prefix"

[train]
steps = 12
batch = { sequences = 8 }
optimizer = { lr = 1e-2 }

[eval]
every = 12
generate = 4
"#;

/// A bidirectional model of text.
const INFILL: &str = r#"
[data]
path = "text.txt"
held_out = 0.2

[objective]
plugin = "infill"

[train]
steps = 30
batch = { tokens = 480 }
optimizer = { lr = 1e-2 }

[eval]
every = 30
"#;

/// Rollouts that the process reward model in `runs/tiny` scores.
const SCORED: &str = r#"
[data]
source = "jsonl"
path = "prompts.jsonl"

[objective]
plugin = "grpo"

[[reward]]
model = "runs/tiny"
aggregate = "mean"

[rollout]
prompts = 8
samples = 2
max_new_tokens = 8

[train]
steps = 2
batch = { prompts = 8 }
optimizer = { lr = 1e-3 }
"#;

/// Answers of one to three steps; a step is right as long as no `x` came before or in it.
fn steps(count: u64) -> String {
    let mut dice = Dice(5);
    let line = |i: u64| {
        let steps: Vec<&str> = (0..1 + dice.below(3)).map(|_| if dice.below(3) == 0 { "x" } else { "ok" }).collect();
        let labels: Vec<bool> = (1..=steps.len()).map(|end| !steps[..end].contains(&"x")).collect();
        format!("{}\n", json!({"prompt": format!("{i}? "), "completions": steps, "labels": labels}))
    };
    (0..count).map(line).collect()
}

fn lab(objective: &str, rows: String) -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{objective}"));
    lab.write("rows.jsonl", rows);
    lab
}

fn config(run: &Run, step: u64) -> Value {
    serde_json::from_slice(&run.saved(step, "config.json")).expect("config.json is JSON")
}

/// Catches scores that are read one token early or late (the last character of a step is its separator's), labels of other steps, a
/// normaliser that counts tokens or depends on how a window is cut, and a saved model that does not say what it is.
#[test]
fn a_process_reward_model_learns_the_labels_of_steps() {
    let lab = lab(PRM, steps(200));
    lab.run(&[]).succeeds();
    let run = lab.tiny_run();
    let (loss, accuracy) = (run.eval("eval/loss"), run.eval("eval/accuracy"));
    // The scalar head starts at 0, so that every step costs ln 2.
    close(loss[0], 2f64.ln(), 1e-6, "the first loss");
    assert!(accuracy[accuracy.len() - 1] > 0.95 && loss[loss.len() - 1] < 0.2, "{accuracy:?} {loss:?}");
    assert_eq!(config(&run, 60)["telos_segment_separator"], "\n");
    lab.run(&["name=cut", "train.micro_batch_tokens=48"]).succeeds();
    let cut = Run(lab.at("runs/cut"));
    for (step, (ours, theirs)) in run.train("loss").iter().zip(cut.train("loss")).enumerate().take(8) {
        close(*ours, theirs, 1e-4, &format!("step {}", step + 1));
    }
}

/// Catches logits in place of probabilities, a score at the last token alone, and keys that such a model does not read.
#[test]
fn a_process_reward_model_scores_rollouts() {
    let lab = lab(PRM, steps(60));
    lab.run(&["train.steps=4"]).succeeds();
    lab.write(
        "prompts.jsonl",
        (0..20).map(|i| format!("{}\n", json!({"prompt": format!("{i}? ")}))).collect::<String>(),
    );
    lab.write("scored.toml", format!("{SMALL}{SCORED}"));
    lab.ask(&["run", "scored.toml"]).succeeds();
    let rewards = Run(lab.at("runs/scored")).train("reward/model");
    assert!(rewards.iter().all(|reward| (0.0..=1.0).contains(reward) && *reward != 0.5), "{rewards:?}");
    let refused = lab.ask(&["run", "scored.toml", "--set", "name=no", "--set", "reward.normalise=true"]);
    refused.refuses(2, &["reward.normalise", "process reward model"]);
}

/// Catches rows whose steps and labels do not fit and that are learned anyway, or found in the middle of a run.
#[test]
fn steps_without_their_labels_are_refused() {
    for (labels, expected) in [
        (json!([true]), "`labels`: 1 value, but the answer has 2 segments"),
        (json!([true, false, true]), "`labels`: 3 values, but the answer has 2 segments"),
        (json!([1, 7]), "`labels[1]`: expected a number from 0 to 1, found 7"),
        (json!(["1", "0"]), "`labels[0]`: expected a number from 0 to 1"),
        (json!(null), "`labels`: missing"),
    ] {
        let row = json!({"prompt": "q ", "completions": ["a", "b"], "labels": labels});
        let lab = lab(PRM, format!("{}{row}\n", steps(60)));
        for command in ["run", "check"] {
            lab.ask(&[command, "tiny.toml"]).refuses(2, &["rows.jsonl:61: ", expected, "objective \"prm\""]);
        }
    }
    let plain =
        lab(PRM, (0..60).map(|i| format!("{}\n", json!({"prompt": format!("{i}? "), "completion": "yes"}))).collect());
    plain.run(&[]).refuses(2, &["rows.jsonl:1: ", "expected a list of texts", "`completions`"]);
    let mixed = lab(PRM, format!("{}{}\n", steps(60), json!({"prompt": "q ", "completion": "yes", "labels": []})));
    mixed.run(&[]).refuses(2, &["rows.jsonl:61", "expected a list of texts"]);
}

/// Catches a row that fills the context although its last token is read too, and truncation that leaves no step and is blamed on the
/// objective.
#[test]
fn steps_that_do_not_fit_are_truncated_or_dropped() {
    let row = |steps: &[&str]| {
        let labels = vec![1; steps.len()];
        format!("{}\n", json!({"prompt": "q ", "completions": steps, "labels": labels}))
    };
    let long = "x".repeat(200);
    let lab = lab(PRM, steps(60) + &row(&["a", &long]) + &row(&[&long]));
    let found = lab.check("tiny.toml", &["data.held_out=0", "eval.every=0"]);
    let counts = &found["rows"];
    assert_eq!((&counts["truncated"], &counts["dropped_no_segment"]), (&json!(1), &json!(1)), "{counts:#}");
    lab.run(&["data.held_out=0", "eval.every=0", "train.steps=2", "train.batch.sequences=61"]).succeeds();
    lab.write("rows.jsonl", row(&[&long]));
    lab.run(&["name=none", "data.held_out=0", "eval.every=0"]).refuses(2, &["no whole segment", "data.max_length"]);
}

/// Catches a mask that is not passed to training, evaluation or generation, one that the saved model does not record, and one that a
/// later run changes without a word.
#[test]
fn a_prefix_model_is_recorded_and_honoured() {
    let rows =
        (0..60).map(|i| format!("{}\n", json!({"prompt": format!("{i}{}? ", i * 7), "completion": format!("{i}")})));
    let lab = lab(PREFIX, rows.collect());
    // In a single layer the keys of a prompt do not depend on its other tokens.
    lab.run(&["model.layers=2"]).succeeds();
    let run = lab.tiny_run();
    assert_eq!(config(&run, 12)["telos_attention"], "prefix");
    lab.run(&["name=causal", "model.layers=2", "objective.attention=causal"]).succeeds();
    let causal = Run(lab.at("runs/causal"));
    assert_eq!(config(&causal, 12).get("telos_attention"), None);
    assert!((run.train("loss")[0] - causal.train("loss")[0]).abs() > 1e-6, "the mask changes nothing");
    let held_out =
        json_lines(lab.at("rows.jsonl")).into_iter().take(20).map(|row| format!("{row}\n")).collect::<String>();
    lab.write("some.jsonl", held_out);
    let loss = |model: &str| -> f64 {
        let answer = lab.ask(&["eval", model, "--rows", "some.jsonl", "--generate", "0", "--json"]);
        let figures: Value = serde_json::from_str(answer.succeeds()).expect("JSON");
        figures["loss"].as_f64().expect("a loss")
    };
    // The same weights read with the other mask; a checkpoint's own files may not be changed.
    fs::create_dir(lab.at("copy")).expect("a folder");
    for file in fs::read_dir(lab.at("runs/tiny/checkpoints/step-00000012")).expect("a checkpoint").flatten() {
        let name = file.file_name().into_string().expect("a name");
        if ["config", "model.", "tokenizer"].iter().any(|start| name.starts_with(start)) {
            fs::copy(file.path(), lab.at("copy").join(&name)).expect("copied");
        }
    }
    let text = fs::read_to_string(lab.at("copy/config.json")).expect("config.json");
    close(loss("copy"), loss("runs/tiny"), 1e-12, "the loss of a copy");
    lab.write("copy/config.json", text.replace("\"prefix\"", "\"causal\""));
    assert!((loss("copy") - loss("runs/tiny")).abs() > 1e-6, "evaluation ignores the mask");
    lab.ask(&["generate", "runs/tiny", "--prompt", "12? ", "--max-tokens", "4"]).succeeds();
    let from = ["name=next", "model={ from = \"runs/tiny\" }"];
    lab.run(&from).succeeds();
    let other = [from[0], from[1], "objective.attention=causal"];
    lab.run(&[&other[..], &["name=other"]].concat())
        .refuses(2, &["model.from", "attention mask prefix", "requires causal"]);
}

/// Catches a sliding window that is ignored, or that is one-sided where tokens see those after them: the operation hides only keys
/// before it.
#[test]
fn a_window_needs_causal_attention() {
    let lab = lab(PREFIX, steps(40));
    lab.run(&["objective.attention=causal", "model.arch=mistral", "train.steps=1"]).succeeds();
    let (saved, folder) = (lab.at("runs/tiny/checkpoints/step-00000001"), lab.at("windowed"));
    fs::create_dir(&folder).expect("a folder");
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(saved.join(file), folder.join(file)).expect("copied");
    }
    let config = fs::read_to_string(folder.join("config.json")).expect("text");
    let started = |window: &str, name: &str, mask: &str| {
        let changed = config.replace("\"sliding_window\": null", &format!("\"sliding_window\": {window}"));
        fs::write(folder.join("config.json"), changed).expect("written");
        let (name, mask) = (format!("name={name}"), format!("objective.attention={mask}"));
        lab.run(&["model={from=\"windowed\"}", "train.steps=1", &name, &mask])
    };
    started("null", "wide", "causal").succeeds();
    started("2", "narrow", "causal").succeeds();
    let [wide, narrow] = ["wide", "narrow"].map(|name| Run(lab.at(&format!("runs/{name}"))).train("loss")[0]);
    assert!((wide - narrow).abs() > 1e-4, "{wide} and {narrow}");
    started("2", "prefix", "prefix").refuses(2, &["has a sliding window", "requires the attention mask prefix"]);
    started("null", "prefix", "prefix").succeeds();
}

/// Catches a bidirectional model that generates, or whose loss on text it has read is reported.
#[test]
fn a_bidirectional_model_trains_and_does_not_generate() {
    let lab = Lab::new();
    lab.write("tiny.toml", format!("{SMALL}{INFILL}"));
    let mut dice = Dice(9);
    lab.write("text.txt", (0..400).map(|_| ["abc", "xyz"][dice.below(2) as usize]).collect::<String>() + "\n");
    lab.run(&[]).succeeds();
    let run = lab.tiny_run();
    let loss = run.eval("eval/loss");
    assert!(loss[loss.len() - 1] < loss[0] - 1.0, "{loss:?}");
    assert_eq!(config(&run, 30)["telos_attention"], "bidirectional");
    lab.run(&["name=no", "sample={ prompts = [\"a\"] }"]).refuses(2, &["sample.prompts", "bidirectional"]);
    let generated = lab.ask(&["generate", "runs/tiny", "--prompt", "ab"]);
    generated.refuses(2, &["bidirectional", "cannot continue a text"]);
    lab.ask(&["eval", "runs/tiny", "--data", "text.txt"]).refuses(2, &["bidirectional"]);
}
