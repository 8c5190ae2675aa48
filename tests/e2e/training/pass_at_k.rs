//! pass@k in whole runs: reported, recorded, refused, resumed.

use std::fs;

use serde_json::{Value, json};

use crate::support::lab::{Lab, ROWS, Run, SMALL, close};

const SFT: &str = r#"
[objective]
plugin = "sft"

[train]
steps = 20
batch = { sequences = 4 }
optimizer = { lr = 1e-2 }

[eval]
every = 10
generate = 100

[checkpoint]
every = 10
"#;

const DRAWN: [&str; 3] = ["eval.samples=6", "eval.pass_at=[6,1,2]", "eval.temperature=0.9"];

/// Rows whose answers are one of two letters, so that sampled answers are sometimes right.
fn lab() -> Lab {
    let lab = Lab::new();
    let answer = |i: usize| if i.is_multiple_of(3) { "b" } else { "a" };
    let row = |i: usize| json!({"prompt": format!("{i}? "), "completion": answer(i)}).to_string() + "\n";
    lab.write("rows.jsonl", (0..60).map(row).collect::<String>());
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{SFT}"));
    lab
}

/// The lines of samples.jsonl that pass@k counted at a step.
fn drawn(run: &Run, step: u64) -> Vec<Value> {
    run.lines("samples.jsonl").into_iter().filter(|line| line["kind"] == "pass" && line["step"] == step).collect()
}

/// Catches a pass@k that does not match the recorded answers, samples of a prompt that are all equal, and a run whose weights,
/// greedy answers or losses change because answers are drawn.
#[test]
fn pass_at_k_does_not_change_training() {
    let lab = lab();
    lab.run(&DRAWN).succeeds();
    let run = lab.tiny_run();
    for (index, step) in [0, 10, 20].into_iter().enumerate() {
        let lines = drawn(&run, step);
        let of_prompts: Vec<&[Value]> = lines.chunk_by(|a, b| a["prompt"] == b["prompt"]).collect();
        assert!(of_prompts.len() > 5 && of_prompts.iter().all(|answers| answers.len() == 6), "{lines:#?}");
        let mean = |of: &dyn Fn(f64) -> f64| {
            let right = |answers: &&[Value]| answers.iter().filter(|answer| answer["match"] == true).count() as f64;
            of_prompts.iter().map(|answers| of(right(answers))).sum::<f64>() / of_prompts.len() as f64
        };
        let found = |k: usize| run.eval(&format!("eval/pass@{k}"))[index];
        close(found(1), mean(&|right| right / 6.0), 1e-12, "pass@1");
        // A pair fails if both of its answers are wrong; 6 answers form 15 pairs.
        close(found(2), mean(&|right| 1.0 - (6.0 - right) * (5.0 - right) / 30.0), 1e-12, "pass@2");
        close(found(6), mean(&|right| f64::from(u8::from(right > 0.0))), 1e-12, "pass@6");
    }
    let last = drawn(&run, 20);
    assert!(
        last.chunk_by(|a, b| a["prompt"] == b["prompt"])
            .any(|own| own.iter().any(|line| line["answer"] != own[0]["answer"]))
    );
    assert!(run.eval("eval/pass@6")[2] > run.eval("eval/pass@1")[2], "pass@6 must exceed pass@1");
    lab.run(&["name=plain"]).succeeds();
    let plain = Run(lab.at("runs/plain"));
    let without = |run: &Run| {
        let mut lines = run.metrics("eval");
        let drop = |line: &mut Value| line.as_object_mut().expect("an object").retain(|key, _| !key.contains("pass@"));
        lines.iter_mut().for_each(drop);
        lines
    };
    assert_eq!(without(&run), plain.metrics("eval"));
    assert!(run.saved(20, "model.safetensors") == plain.saved(20, "model.safetensors"));
    let text = fs::read_to_string(plain.0.join("experiment.toml")).expect("written");
    assert!(!text.contains("samples") && !text.contains("pass_at"), "{text}");
}

/// Catches samples that depend on the state of the process's random generator.
#[test]
fn a_resumed_run_draws_the_same_answers() {
    let lab = lab();
    lab.run(&DRAWN).succeeds();
    let whole = lab.tiny_run();
    lab.run(&[&DRAWN[..], &["name=parts", "train.steps=10"]].concat()).succeeds();
    lab.resume(&[&DRAWN[..], &["name=parts"]].concat()).succeeds();
    let parts = Run(lab.at("runs/parts"));
    assert_eq!(parts.metrics("eval"), whole.metrics("eval"));
    assert_eq!(parts.lines("samples.jsonl"), whole.lines("samples.jsonl"));
}

/// Catches pass@k that is requested and silently left out, a rule that cannot read it, and another number of answers on resuming.
#[test]
fn invalid_pass_at_k_requests_are_refused() {
    let lab = lab();
    lab.run(&["eval.pass_at=[4]"]).refuses(2, &["eval.pass_at: 4 is more than eval.samples = 1"]);
    lab.run(&[DRAWN[0], "checkpoint.best=max:eval/pass@2"]).refuses(2, &["checkpoint.best", "eval/pass@"]);
    lab.run(&[DRAWN[0], "checkpoint.best=max:eval/pass@6", "train.steps=10"]).succeeds();
    assert_eq!(lab.tiny_run().pointer("BEST"), Some(10));
    lab.resume(&["eval.samples=7", "checkpoint.best=max:eval/pass@6"]).refuses(2, &["eval.samples"]);
    let row = |i: usize| json!({"prompt": format!("{i}? ")}).to_string() + "\n";
    lab.write("rows.jsonl", (0..60).map(row).collect::<String>());
    let prompts = ["objective.plugin=ppo", "train.batch={prompts=4}", "rollout={prompts=4, max_new_tokens=4}"];
    let rewarded = ["reward={plugin=\"length\"}", DRAWN[0], "name=asked"];
    lab.run(&[&prompts[..], &rewarded].concat()).refuses(2, &["eval.pass_at: unused", "data.columns.answer"]);
    assert!(!lab.at("runs/asked").exists());
}
