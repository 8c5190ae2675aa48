//! The memory of a run by `telos check`, compared with what the run uses.

use serde_json::Value;

use crate::support::{
    experiments::{DPO, PPO},
    lab::{Lab, ROWS, Run, SMALL},
};

/// A model whose activations outweigh its weights.
const MODEL: &str = "layers = 1\ndim = 32\nheads = 2\ncontext = 48\n";
const LARGER: &str = "layers = 3\ndim = 96\nheads = 4\ncontext = 256\n";

const SFT: &str = r#"
[objective]
plugin = "sft"

[train]
steps = 6
batch = { sequences = 24 }
optimizer = { lr = 1e-3 }
"#;

/// Rows of every kind at once, of lengths from 20 to 200 tokens.
fn rows() -> String {
    let line = |i: u64| {
        let (question, answer) = (format!("{i}? "), "well, ".repeat(2 + (i as usize * 7) % 25));
        serde_json::json!({"prompt": question, "completion": answer, "chosen": answer, "rejected": "no"}).to_string()
            + "\n"
    };
    (0..400).map(line).collect()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no `{key}` in {value}"))
}

/// Checks and runs an experiment; returns what each reports for device and process.
fn both(objective: &str, sets: &[&str]) -> [[f64; 2]; 2] {
    let lab = Lab::new();
    let model = SMALL.replace(MODEL, LARGER);
    assert_ne!(model, SMALL);
    lab.write("tiny.toml", format!("{model}{ROWS}\n[eval]\nevery = 3\n{objective}"));
    lab.write("rows.jsonl", rows());
    let predicted = lab.check("tiny.toml", sets);
    lab.run(sets).succeeds();
    let lines = Run(lab.at("runs/tiny")).lines("timing.jsonl");
    let used = lines.iter().rev().find(|line| line["kind"] == "train").expect("a step");
    [&predicted, used].map(|from| [number(from, "memory_peak_bytes"), number(from, "process_peak_bytes")])
}

/// Catches an estimate that leaves out evaluation, the reference's pass, the critic or the caches of generation, or that counts a
/// reference that a run no longer holds; and evaluations that compute more at a time than a step does.
#[test]
#[cfg(target_os = "linux")]
fn check_predicts_the_memory_of_a_run() {
    let ppo = PPO.replace("steps = 12", "steps = 4");
    for (name, objective, sets) in [
        ("sft", SFT, &["eval.generate=8"][..]),
        ("sft in small steps", SFT, &["train.batch={sequences=2}"]),
        ("dpo", DPO, &["train.steps=4"]),
        ("dpo in small steps", DPO, &["train.steps=4", "train.batch={pairs=2}"]),
        ("ppo", &ppo, &["rollout.max_new_tokens=64", "rollout.samples=4"]),
    ] {
        let [predicted, used] = both(objective, sets);
        for (what, predicted, used) in [("device", predicted[0], used[0]), ("process", predicted[1], used[1])] {
            let error = predicted / used - 1.0;
            assert!(error.abs() < 0.1, "{name}, {what}: check predicts {predicted}, the run used {used}: {error:+.3}");
        }
    }
}
