//! A real model's evaluations, compared with numbers that transformers computed: `tests/references/evaluate.json`.

use std::{fs, path::Path};

use serde_json::Value;

use super::model;
use crate::support::lab::{Lab, close, json_lines};

/// Catches a choice whose tokens begin or end one off, a prompt without its first token, a text's window that lacks its first
/// token, and an end that is not counted.
#[test]
#[cfg_attr(not(telos_data), ignore = "needs real data: set TELOS_DATA to its folder")]
fn choices_and_texts_have_transformers_log_probabilities() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("references/evaluate.json");
    let expected: Value = serde_json::from_slice(&fs::read(file).expect("the reference")).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let (lab, model) = (Lab::new(), model().to_string_lossy().into_owned());
    let questions = list(&expected["questions"]);
    lab.write("questions.jsonl", questions.iter().map(|question| question.to_string() + "\n").collect::<String>());
    lab.ask(&["eval", &model, "--choices", "questions.jsonl", "--out", "choices.jsonl"]).succeeds();
    let lines = json_lines(lab.at("choices.jsonl"));
    assert_eq!(lines.len(), questions.len());
    for (ours, theirs) in lines.iter().zip(&questions) {
        assert_eq!(ours["tokens"], theirs["tokens"], "{ours}");
        assert_eq!(list(&ours["logprobs"]).len(), list(&theirs["logprobs"]).len());
        for (a, b) in list(&ours["logprobs"]).iter().zip(list(&theirs["logprobs"])) {
            close(a.as_f64().expect("a number"), b.as_f64().expect("a number"), 1e-3, "log-probability");
        }
    }
    let texts = list(&expected["texts"]);
    for (number, text) in texts.iter().enumerate() {
        lab.write(&format!("{number}.txt"), text["text"].as_str().expect("a text"));
    }
    lab.ask(&["eval", &model, "--data", "0.txt", "1.txt", "2.txt", "--out", "texts.jsonl"]).succeeds();
    let lines = json_lines(lab.at("texts.jsonl"));
    assert_eq!(lines.len(), texts.len());
    for (ours, theirs) in lines.iter().zip(&texts) {
        let number = |value: &Value, key: &str| value[key].as_f64().expect("a number");
        let tokens = number(theirs, "tokens");
        assert_eq!(number(ours, "tokens"), tokens);
        close(number(ours, "loss"), number(theirs, "nats") / tokens, 1e-4, "loss");
        close(
            number(ours, "loss_without_end"),
            number(theirs, "nats_without_end") / (tokens - 1.0),
            1e-4,
            "without the end",
        );
    }
}
