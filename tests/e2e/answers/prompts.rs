//! `telos generate --prompts`.

use std::fs;

use serde_json::{Value, json};

use super::answers_a;
use crate::support::lab::{Lab, json_lines};

fn generate(lab: &Lab, more: &[&str]) -> crate::support::rig::Answer {
    lab.ask(&[&["generate", "runs/tiny", "--max-tokens", "6"], more].concat())
}

/// Catches columns that are lost or rounded, a completion of the input that is overwritten, answers in another order, and flags
/// of another answer.
#[test]
fn every_row_keeps_its_columns_and_gets_an_answer() {
    let lab = answers_a();
    let rows = [
        r#"{"qid": 9007199254740993123, "prompt": "7? ", "completion": "gold", "tags": ["x"]}"#,
        r#"{"prompt": "8? ", "qid": null}"#,
    ];
    lab.write("in.jsonl", rows.join("\n"));
    let counts = generate(&lab, &["--prompts", "in.jsonl", "--out", "out.jsonl", "--temperature", "0", "--json"]);
    counts.succeeds();
    assert_eq!((&counts.json()["prompts"], &counts.json()["answers"]), (&json!(2), &json!(2)));
    let text = fs::read_to_string(lab.at("out.jsonl")).expect("answers");
    assert!(text.contains("\"qid\":9007199254740993123"), "{text}");
    let lines = json_lines(lab.at("out.jsonl"));
    assert_eq!(lines[0]["reference"], "gold");
    assert_eq!(lines[0]["tags"], json!(["x"]));
    assert_eq!(lines[1]["prompt"], "8? ");
    for line in &lines {
        let own = ["completion", "completion_ended", "completion_tokens", "finish"].map(|key| line[key].clone());
        assert_eq!(own, [json!("a"), json!(true), json!(2), json!("end of sequence")], "{line}");
    }
    let summary: Value =
        serde_json::from_slice(&fs::read(lab.at("out.summary.json")).expect("a summary")).expect("JSON");
    assert_eq!((&summary["settings"]["temperature"], &summary["figures"]["answers"]), (&json!(0.0), &json!(2)));
    // Its rows are rows of prompts and completions.
    lab.ask(&["eval", "runs/tiny", "--rows", "out.jsonl", "--json"]).succeeds();
    // Without messages there is nothing to answer; rows of two shapes are refused at the first of the other shape.
    lab.write("odd.jsonl", "{\"prompt\": \"1? \"}\n{\"text\": \"x\"}\n");
    generate(&lab, &["--prompts", "odd.jsonl", "--out", "odd.out"]).refuses(2, &["odd.jsonl:2", "`prompt`"]);
    assert!(!lab.at("odd.out").exists());
    let answer = json!({"messages": [{"role": "assistant", "content": "x"}]}).to_string();
    lab.write("answer.jsonl", answer);
    generate(&lab, &["--prompts", "answer.jsonl", "--out", "odd.out"]).refuses(2, &["answer.jsonl:1", "messages"]);
    let many = ["--prompts", "many.jsonl", "--out", "odd.out", "--samples", "16777216"];
    lab.write(
        "many.jsonl",
        (0..9999).map(|i| json!({"prompt": format!("{i}? ")}).to_string() + "\n").collect::<String>(),
    );
    lab.ask(&[&["generate", "runs/tiny"], &many[..]].concat()).refuses(2, &["answers: about", "--samples"]);
    generate(&lab, &["--prompts", "in.jsonl"]).refuses(2, &["--out"]);
    generate(&lab, &["--prompt", "x", "--out", "x.jsonl"]).refuses(2, &["--out is for --prompts"]);
    generate(&lab, &["--prompt", "x", "--batch", "3"]).refuses(2, &["--batch is for --prompts"]);
    let logits = ["--prompts", "in.jsonl", "--out", "x.jsonl", "--json", "--logits"];
    generate(&lab, &logits).refuses(2, &["--logits is for --prompt"]);
}

/// Catches answers that depend on the batch or on where the command was interrupted, rows that are written twice or lost, a torn
/// row that is kept, and a file of other answers that is continued.
#[test]
fn answers_depend_neither_on_the_batch_nor_on_an_interruption() {
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    let prompts: String =
        (0..30).map(|i| json!({"prompt": "sort: "[..1 + i % 6], "i": i}).to_string() + "\n").collect();
    lab.write("in.jsonl", prompts);
    let ask = |out: &str, more: &[&str]| {
        generate(&lab, &[&["--prompts", "in.jsonl", "--out", out, "--n", "3"], more].concat())
    };
    ask("whole.jsonl", &[]).succeeds();
    let whole = fs::read_to_string(lab.at("whole.jsonl")).expect("answers");
    let lines = json_lines(lab.at("whole.jsonl"));
    assert_eq!(lines.len(), 90);
    let place = |line: &Value| (line["i"].as_u64(), line["sample"].as_u64());
    assert!(lines.iter().zip(0..).all(|(line, at)| place(line) == (Some(at / 3), Some(at % 3))));
    let distinct =
        |from: usize| lines[from..from + 3].iter().any(|line| line["completion"] != lines[from]["completion"]);
    assert!((0..30).any(|prompt| distinct(3 * prompt)), "the samples of a prompt share their noise");
    for batch in ["1", "7"] {
        ask("other.jsonl", &["--batch", batch]).succeeds();
        assert_eq!(fs::read_to_string(lab.at("other.jsonl")).expect("answers"), whole, "batch {batch}");
        fs::remove_file(lab.at("other.jsonl")).expect("removed");
    }
    // As an interruption leaves it: in the middle of a row, and in the middle of a prompt's samples.
    let cut: usize = whole.lines().take(40).map(|line| line.len() + 1).sum::<usize>() + 20;
    lab.write("whole.jsonl", &whole[..cut]);
    let counts = ask("whole.jsonl", &["--json"]);
    counts.succeeds();
    assert_eq!((&counts.json()["earlier"], &counts.json()["answers"]), (&json!(40), &json!(90)));
    assert_eq!(fs::read_to_string(lab.at("whole.jsonl")).expect("answers"), whole);
    // Counts are those of the file, whoever wrote its rows.
    let tokens: u64 = lines.iter().filter_map(|line| line["completion_tokens"].as_u64()).sum();
    assert_eq!(counts.json()["tokens"], json!(tokens));
    let summary: Value =
        serde_json::from_slice(&fs::read(lab.at("whole.summary.json")).expect("a summary")).expect("JSON");
    assert_eq!((&summary["figures"]["answers"], &summary["figures"]["tokens"]), (&json!(90), &json!(tokens)));
    // A file that was edited has as many lines as another part of the answers.
    let without_third: Vec<&str> =
        whole.lines().take(9).enumerate().filter(|(at, _)| *at != 2).map(|(_, l)| l).collect();
    for (edited, line) in [(without_third.join("\n") + "\n", 3), ("{\"garbage\":1}\n".to_owned(), 1)] {
        lab.write("whole.jsonl", &edited);
        ask("whole.jsonl", &[]).refuses(2, &[&format!("whole.jsonl:{line}: "), "cannot be continued", "remove line"]);
        assert_eq!(fs::read_to_string(lab.at("whole.jsonl")).expect("answers"), edited);
    }
    lab.write("whole.jsonl", &whole);
    let other = ["--seed", "4", "--temperature", "0.5"];
    ask("whole.jsonl", &other).refuses(2, &["whole.jsonl", "other settings", "seed: 0 there, 4 now", "temperature"]);
    ask("in.jsonl", &[]).refuses(2, &["in.jsonl exists already", "in.summary.json"]);
    let message = |role: &str| json!({"role": role, "content": "a"});
    let open = json!({"messages": [message("user"), message("assistant"), message("user")], "reference": 42});
    lab.write("open.jsonl", open.to_string());
    let plain = ["--prompts", "open.jsonl", "--chat-template", "plain", "--out", "open.out.jsonl"];
    generate(&lab, &plain).succeeds();
    assert_eq!(json_lines(lab.at("open.out.jsonl"))[0]["reference"], 42);
    lab.write("open.jsonl", json!({"messages": [message("user"), message("assistant")], "reference": 42}).to_string());
    generate(&lab, &plain).refuses(2, &["open.jsonl:1", "`reference`", "rename"]);
    lab.write("mine.summary.json", "{\"settings\": \"not to be lost\"}");
    ask("mine.jsonl", &[]).refuses(2, &["mine.summary.json exists already"]);
}

/// Catches a prompt without room for an answer that ends the command, or moves the answers after it.
#[test]
fn a_prompt_that_is_too_long_has_a_row_without_a_completion() {
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    let row = |prompt: &str| json!({"prompt": prompt}).to_string() + "\n";
    lab.write("short.jsonl", row("a") + &row("b") + &row("c"));
    lab.write("long.jsonl", row("a") + &row(&"x".repeat(40)) + &row("c"));
    for file in ["short", "long"] {
        let (prompts, out) = (format!("{file}.jsonl"), format!("{file}.out.jsonl"));
        generate(&lab, &["--prompts", &prompts, "--out", &out]).succeeds();
    }
    let (short, long) = (json_lines(lab.at("short.out.jsonl")), json_lines(lab.at("long.out.jsonl")));
    assert_eq!((&long[0], &long[2]), (&short[0], &short[2]));
    assert_eq!((&long[1]["completion"], &long[1]["finish"]), (&Value::Null, &json!("prompt too long")));
    // An evaluation of the file skips the row and counts it.
    let figures = lab.ask(&["eval", "runs/tiny", "--rows", "long.out.jsonl", "--generate", "0", "--json"]);
    figures.succeeds();
    assert_eq!((&figures.json()["rows"]["train"], &figures.json()["unanswered"]), (&json!(2), &json!(1)));
}
