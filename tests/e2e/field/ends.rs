//! The tokens that end an answer: from tokenizer, config.json and generation_config.json together.

use std::fs;

use serde_json::{Value, json};

use super::case;
use crate::support::lab::{Lab, Run};

fn read(lab: &Lab, path: &str) -> Value {
    serde_json::from_slice(&fs::read(lab.at(path)).expect("a file")).expect("JSON")
}

/// Changes a key of the model's config.json.
fn set(lab: &Lab, key: &str, value: Value) {
    let mut config = read(lab, "model/config.json");
    config[key] = value;
    lab.write("model/config.json", config.to_string());
}

/// The last evaluation's exact match.
fn exact_match(lab: &Lab) -> f64 {
    lab.ask(&["run", "case.toml"]).succeeds();
    *Run(lab.at("runs/case")).eval("eval/exact_match").last().expect("an evaluation")
}

/// Catches a row's answer that is compared with its turn's end and the model's without. In the trained model, what generation
/// prints has no end token, and generation stops at the turn's.
#[test]
fn turn_end_exact_match() {
    let lab = case("turn-end-exact-match");
    assert_eq!(exact_match(&lab), 1.0);
    let prompt = "<system>7<|end|>\n<user>red?<|end|>\n<assistant>";
    let args = ["generate", "runs/case", "--prompt", prompt, "--temperature", "0", "--json"];
    let answer: Value = serde_json::from_str(lab.ask(&args).succeeds()).expect("JSON");
    assert_eq!((&answer["text"], &answer["finish"]), (&json!("apple"), &json!("end of sequence")));
    assert_eq!(answer["tokens"].as_array().and_then(|tokens| tokens.last()), Some(&json!(259)));
}

/// The same if only generation_config.json names the turn's end, and if it names no end at all. Catches a file that is not read,
/// and one that saving rewrites without its other keys or in another form.
#[test]
fn gotcha_46_generation_config_names_the_end_tokens_and_is_kept() {
    let kept =
        "{\n  \"temperature\": 0.6, \"eos_token_id\": [259, 256, 4711],\n \"transformers_version\": \"4.40.0\"\n}";
    let lab = case("turn-end-exact-match");
    set(&lab, "eos_token_id", json!(256));
    lab.write("model/generation_config.json", kept);
    assert_eq!(exact_match(&lab), 1.0);
    let saved = |file: &str| String::from_utf8(Run(lab.at("runs/case")).saved(300, file)).expect("UTF-8");
    assert_eq!(saved("generation_config.json"), kept);
    let config: Value = serde_json::from_str(&saved("config.json")).expect("JSON");
    assert_eq!(config["eos_token_id"], json!([256, 259]));

    let lab = case("turn-end-exact-match");
    lab.write("model/generation_config.json", r#"{"top_p": 0.9}"#);
    let answer = lab.ask(&["run", "case.toml", "--set", "train.steps=1", "--set", "eval.generate=1"]);
    answer.succeeds();
    let saved = Run(lab.at("runs/case")).saved(1, "generation_config.json");
    assert_eq!(String::from_utf8(saved).expect("UTF-8"), r#"{"top_p": 0.9}"#);
}

/// Catches an end outside the vocabulary that a backend looks up, and one that is dropped without a note.
#[test]
fn an_end_token_outside_the_vocabulary_is_left_out_with_a_note() {
    let lab = case("turn-end-exact-match");
    set(&lab, "eos_token_id", json!([256, 999]));
    set(&lab, "pad_token_id", json!(-1));
    let answer = lab.ask(&["run", "case.toml", "--set", "train.steps=1", "--set", "eval.generate=1"]);
    answer.succeeds();
    let output = answer.out + &answer.err;
    assert!(output.contains("config.json: `eos_token_id` contains the token id 999"), "{output}");
    assert!(!output.contains("pad_token_id"), "{output}");
    set(&lab, "eos_token_id", json!(["<|end|>"]));
    lab.ask(&["generate", "model", "--prompt", "x"]).refuses(2, &["config.json", "eos_token_id", "<|end|>"]);
}

/// Catches a turn's end that is passed to rewards as text.
#[test]
fn turn_end_in_rewards() {
    let lab = case("turn-end-in-rewards");
    lab.ask(&["run", "sft.toml"]).succeeds();
    lab.ask(&["run", "case.toml"]).succeeds();
    let run = Run(lab.at("runs/case"));
    assert_eq!(run.train("reward/exact"), [1.0]);
    for sample in run.lines("samples.jsonl") {
        let text = sample["text"].as_str().expect("a text");
        assert!(["apple\n", "sky\n", "grass\n", "coal\n"].contains(&text), "{sample}");
    }
}
