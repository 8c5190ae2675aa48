//! `telos chat` with lines from a pipe.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    field::case,
    support::{lab::Lab, rig::Answer},
};

/// Runs a conversation whose lines are on standard input.
fn chat(lab: &Lab, args: &[&str], lines: &str) -> Answer {
    let mut command: Command = lab.command(&[&["chat"], args].concat());
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("telos starts");
    // A refused request ends before it reads anything.
    _ = child.stdin.take().expect("a pipe").write_all(lines.as_bytes());
    Answer::from_output(child.wait_with_output().expect("telos ends"))
}

/// A model that has learned to answer "apple" to "red?", and its chat template, which ends turns with `<|end|>`.
fn fruits() -> Lab {
    let lab = case("turn-end-exact-match");
    lab.ask(&["run", "case.toml"]).succeeds();
    lab
}

/// Catches answers that include the turn's end or run past it, commands that are sent to the model, a system message that is not
/// sent, and anything but answers on standard output.
#[test]
fn every_line_is_a_turn_and_standard_output_has_only_answers() {
    let lab = fruits();
    let greedy = ["runs/case", "--temperature", "0", "--max-tokens", "9"];
    let answer = chat(&lab, &greedy, "/system 7\nred?\n\n/system 4\nblue?\n/help\n/quit\nred?\n");
    assert_eq!(answer.succeeds(), "apple\nsky\n");
    for part in ["tokens/s", "a new conversation with this system message", "/reset"] {
        assert!(answer.err.contains(part), "{part}: {answer:#?}");
    }
    // The same system message by an option; the conversation before is forgotten.
    let again = chat(&lab, &[&greedy[..], &["--system", "7"]].concat(), "red?\n/reset\nred?");
    assert_eq!(again.succeeds(), "apple\napple\n");
    chat(&lab, &greedy, "/systm 7\n").refuses(2, &["/systm is not a command", "/help"]);
}

/// Catches an answer that runs past its turn because only the chat template shows how a turn ends.
#[test]
fn a_turn_ends_where_the_template_ends_it() {
    let lab = fruits();
    let saved = lab.at("runs/case/checkpoints/step-00000300");
    fs::create_dir(lab.at("copy")).expect("a folder");
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"] {
        fs::copy(saved.join(file), lab.at("copy").join(file)).expect("copied");
    }
    let mut config: Value =
        serde_json::from_slice(&fs::read(lab.at("copy/config.json")).expect("a file")).expect("JSON");
    config["eos_token_id"] = json!(256);
    lab.write("copy/config.json", config.to_string());
    let answer = chat(&lab, &["copy", "--temperature", "0", "--max-tokens", "9", "--system", "7"], "red?\n");
    assert_eq!(answer.succeeds(), "apple\n");
    assert!(!answer.err.contains("cut off"), "{answer:#?}");
}

/// Catches a conversation that outgrows the context and fails or goes on in silence, and a message that can never fit.
#[test]
fn the_oldest_messages_are_dropped_once_the_context_is_full() {
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    let plain = ["runs/tiny", "--chat-template", "plain", "--temperature", "0", "--max-tokens", "3"];
    let answer = chat(&lab, &plain, "abcd\nefgh\nijkl\n");
    assert_eq!(answer.succeeds().lines().count(), 3, "{answer:#?}");
    assert!(answer.err.contains("the oldest") && answer.err.contains("were dropped"), "{answer:#?}");
    chat(&lab, &plain, &"x".repeat(40)).refuses(2, &["41 tokens", "context length 16", "shorten"]);
    chat(&lab, &plain[..1], "hello\n").refuses(2, &["no chat template", "--chat-template"]);
}
