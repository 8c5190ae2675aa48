//! `telos chat` with lines from a pipe.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    field::case,
    support::{
        lab::{Lab, json_lines},
        rig::Answer,
    },
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

/// Catches a model that continues to generate although nobody reads it, and a closed pipe that is reported as a failure.
#[test]
fn a_closed_pipe_ends_what_is_only_printed() {
    let lab = fruits();
    let chat = ["chat", "runs/case", "--max-tokens", "9"];
    let generate = ["generate", "runs/case", "--prompt", "red?", "--max-tokens", "9"];
    for args in [&chat[..], &generate] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command: Command = lab.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped()).spawn().expect("telos starts");
        _ = child.stdin.take().expect("a pipe").write_all(b"red?\nblue?\n");
        let answer = Answer::from_output(child.wait_with_output().expect("telos ends"));
        assert!(answer.code == Some(0) && !answer.err.contains("tokens/s"), "{args:?}: {answer:#?}");
    }
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
    // The same for answers to rows, and for scores of choices, whose end is not scored.
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let question = json!([message("system", "7"), message("user", "red?")]);
    let row = json!({"prompt": question, "completion": [message("assistant", "apple")]});
    lab.write("rows.jsonl", row.to_string());
    let rows = lab.ask(&["eval", "copy", "--rows", "rows.jsonl", "--json"]);
    rows.succeeds();
    assert_eq!(rows.json()["exact_match"], 1.0, "{rows:#?}");
    lab.write("choices.jsonl", json!({"prompt": question, "choices": ["sky", "apple"], "answer": 1}).to_string());
    lab.ask(&["eval", "copy", "--choices", "choices.jsonl", "--out", "scores.jsonl"]).succeeds();
    let scores = &json_lines(lab.at("scores.jsonl"))[0];
    // A token for each byte.
    assert_eq!((&scores["tokens"], &scores["chosen"]), (&json!([3, 5]), &json!(1)), "{scores}");
}

/// Signals within 800 ms are one request; these are not.
const TOGETHER: Duration = Duration::from_millis(900);

/// Catches a Ctrl-C between answers that ends the conversation at once, one that is never reported, and a program that no number of
/// them ends.
#[test]
fn one_interruption_between_answers_ends_nothing() {
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    let mut command =
        lab.command(&["chat", "runs/tiny", "--chat-template", "plain", "--temperature", "0", "--max-tokens", "3"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("telos starts");
    let mut input = child.stdin.take().expect("a pipe");
    let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut messages = BufReader::new(child.stderr.take().expect("a pipe"));
    let interrupt = |child: &Child| kill_process(Pid::from_child(child), Signal::INT).expect("sent");
    // A program that says or does nothing is ended after some minutes, and the test fails.
    let (running, ends) = mpsc::channel::<()>();
    let pid = Pid::from_child(&child);
    thread::spawn(move || {
        if ends.recv_timeout(Duration::from_secs(300)) == Err(RecvTimeoutError::Timeout) {
            _ = kill_process(pid, Signal::KILL);
        }
    });
    let mut read_to = |part: &str| {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(messages.read_line(&mut line).expect("a line"), 0, "the program ended before {part:?}");
        }
    };
    for _ in 0..2 {
        input.write_all(b"ab\n").expect("written");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("an answer");
        assert!(answer.ends_with('\n'), "{answer:?}");
        // It is written after the answer has ended.
        read_to("tokens/s");
        interrupt(&child);
        read_to("/quit or Ctrl-D ends the program");
        thread::sleep(TOGETHER);
    }
    while child.try_wait().expect("a state").is_none() {
        interrupt(&child);
        thread::sleep(TOGETHER);
    }
    assert_eq!(child.wait().expect("a state").code(), Some(130));
    drop(running);
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
