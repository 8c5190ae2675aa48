//! Instruction tuning in whole runs: what is supervised, counted, saved and refused.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    kills::{kill_at, with_enough_steps},
    lab::{Lab, ROWS, SMALL, close},
};

/// A run of a few steps over the rows of `rows.jsonl`.
const TINY: &str = r#"
[objective]
plugin = "sft"

[train]
steps = 60
batch = { sequences = 16 }
optimizer = { lr = 1e-2 }

[eval]
every = 30
generate = 8

[checkpoint]
every = 30
"#;

/// Prompts of random digits; every answer is `yes`.
fn rows(count: u64) -> String {
    let mut dice = crate::support::lab::Dice(3);
    let line = |_| {
        let digits: String = (0..12).map(|_| char::from(b'0' + dice.below(10) as u8)).collect();
        format!("{}\n", json!({"prompt": format!("{digits}? "), "completion": "yes", "digits": 12}))
    };
    (0..count).map(line).collect()
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{TINY}"));
    lab.write("rows.jsonl", rows(200));
    lab
}

/// Answers can be predicted, but prompts cannot because of their ten digits: a model that is also trained on prompts ends near ln
/// 10 = 2.3 nats per digit. Catches a prompt that is supervised, a completion that is not, and an end of text that is not learned
/// (then greedy answers do not stop and none is exact).
#[test]
fn gotcha_02_completions_are_supervised_to_their_end_and_prompts_are_not() {
    let lab = lab();
    lab.run(&[]).succeeds();
    let run = lab.tiny_run();
    let (loss, exact) = (run.eval("eval/loss"), run.eval("eval/exact_match"));
    assert!(loss[0] > 5.0 && loss[loss.len() - 1] < 0.05, "{loss:?}");
    assert_eq!((exact[0], exact[exact.len() - 1]), (0.0, 1.0), "{exact:?}");
    let mut dice = crate::support::lab::Dice(4);
    lab.write("digits.txt", (0..2000).map(|_| char::from(b'0' + dice.below(10) as u8)).collect::<String>());
    let answer = lab.ask(&["eval", "runs/tiny", "--data", "digits.txt", "--json"]);
    let figures: Value = serde_json::from_str(answer.succeeds()).expect("JSON");
    assert!(figures["loss"].as_f64().is_some_and(|loss| loss > 5.0), "prompts were learned: {figures}");
}

/// Rows in one micro-batch, in several, and one by one are the same step. Catches attention or positions that cross rows, and
/// means of means, which differ since the answers' lengths do.
#[test]
fn gotcha_12_packed_rows_train_as_rows_one_by_one() {
    let lab = lab();
    let lines = (0..200)
        .map(|i| json!({"prompt": format!("{i}: "), "completion": "yes ".repeat(1 + i % 7)}).to_string() + "\n");
    lab.write("rows.jsonl", lines.collect::<String>());
    let mut runs = Vec::new();
    for (name, tokens) in [("packed", 4096), ("few", 100), ("single", 48)] {
        let set = format!("train.micro_batch_tokens={tokens}");
        lab.ask(&["run", "tiny.toml", "--name", name, "--set", &set, "--set", "train.steps=5"]).succeeds();
        let run = crate::support::lab::Run(lab.at(&format!("runs/{name}")));
        runs.push((run.train("loss"), run.train("grad_norm")));
    }
    for (loss, norm) in &runs[1..] {
        for step in 0..5 {
            close(runs[0].0[step], loss[step], 1e-5, "loss");
            close(runs[0].1[step], norm[step], 1e-4, "gradient norm");
        }
    }
}

/// Killed in the middle of an epoch of rows, the run resumes bit for bit. Catches a row order that restarts.
#[test]
fn gotcha_42_a_killed_run_over_rows_leaves_the_same_bits() {
    with_enough_steps(120, |steps| {
        let length = format!("train.steps={steps}");
        let sets = [&length, "checkpoint.every=1", "eval.every=20"];
        let undisturbed = lab();
        undisturbed.run(&sets).succeeds();
        let lab = lab();
        let run = lab.tiny_run();
        let killed = kill_at(&lab, &sets, &run, [5, 31, 70]);
        lab.resume(&sets).succeeds();
        run.has_steps(steps);
        run.equals(&undisturbed.tiny_run(), steps);
        // Other rows are another run.
        lab.write("rows.jsonl", rows(199));
        lab.resume(&sets).refuses(2, &["data[rows.jsonl].sha256", "--name"]);
        killed
    });
}

/// Catches counts that are only printed, or wrong, and a template that is not saved with the model.
#[test]
fn gotcha_05_15_the_receipt_counts_dropped_rows_and_the_template_is_saved_with_the_model() {
    let lab = lab();
    let long = json!({"prompt": "x".repeat(60), "completion": "y", "digits": 1}).to_string() + "\n";
    lab.write("rows.jsonl", rows(50) + &long + &rows(50));
    let answer = lab.run(&["train.steps=2", "data.held_out=0", "eval={}", "data.chat_template=plain"]);
    answer.succeeds();
    assert!(
        answer.err.contains("100 rows to train on, 0 held out, read as prompt-completion; 1 dropped"),
        "{answer:#?}"
    );
    let run = lab.tiny_run();
    let receipt: Value = serde_json::from_slice(&run.bytes("receipt.json")).expect("JSON");
    assert_eq!(receipt["rows"]["dropped_too_long"], 1, "{receipt:#}");
    assert_eq!(receipt["rows"]["columns"], json!(["digits"]));
    let template = String::from_utf8(run.saved(2, "chat_template.jinja")).expect("UTF-8");
    assert!(template.contains("{% generation %}"), "{template}");
    // And the next run takes it from there.
    let chat =
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}).to_string();
    lab.write("rows.jsonl", format!("{chat}\n"));
    lab.write(
        "next.toml",
        format!("{SMALL}{ROWS}{TINY}").replace("layers = 1\ndim = 32\nheads = 2\ncontext = 48", "from = \"runs/tiny\""),
    );
    let sets = ["--set", "data.held_out=0", "--set", "eval={}", "--set", "data.chat_template=tokenizer"];
    let answer = lab.ask(&[&["check", "next.toml"][..], &sets].concat());
    assert!(answer.succeeds().contains("a\n⟦b<|endoftext|>⟧"), "{answer:#?}");
}

/// Every mistake is found before anything is written, and is reported with its place.
#[test]
fn wrong_rows_and_combinations_are_refused_before_anything_is_written() {
    let lab = lab();
    let refused = |sets: &[&str], parts: &[&str]| {
        lab.run(sets).refuses(2, parts);
        assert!(!lab.at("runs").exists(), "something was written");
    };
    refused(&["objective.plugin=ce"], &["\"ce\" learns from text data", "prompt-completion"]);
    refused(
        &["data={path='rows.jsonl'}", "eval={}"],
        &["\"sft\" learns from prompt-completion data", "yields text data"],
    );
    refused(&["data.path=no.jsonl"], &["no file or folder no.jsonl"]);
    refused(&["data.chat_template=no.jinja"], &["data.chat_template", "cannot read no.jinja"]);
    refused(&["data.chat_template='{% for %}'"], &["data.chat_template", "the chat template cannot be used"]);
    refused(&["data.chat_template=tokenizer"], &["the tokenizer bytes has no chat template", "plain"]);
    refused(&["data.max_length=3"], &["no row of rows.jsonl is left", "data.max_length"]);
    refused(&["train.context_schedule=[[0, 16], [9, 32]]"], &["train.context_schedule", "data.max_length"]);
    refused(&["data={source='jsonl',path='rows.jsonl',split_column='side'}"], &["rows.jsonl:1: `side`: missing"]);
    fs::write(lab.at("rows.jsonl"), rows(3) + "{\"prompt\": \"a\", \"answer\": \"b\"}\n").expect("written");
    refused(&[], &["rows.jsonl:4: needs `messages`, or `prompt` and `completion`; it has `prompt`, `answer`"]);
}
