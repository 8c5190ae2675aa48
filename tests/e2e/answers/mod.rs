//! A saved model's answers: conversations, files of prompts, and evaluations by tasks.

mod chat;
mod prompts;
mod tasks;

use serde_json::json;

use crate::support::lab::{Lab, ROWS, SMALL};

/// A small model that has learned to answer "a" to "N? ".
fn answers_a() -> Lab {
    let lab = Lab::new();
    let row = |i: usize| json!({"prompt": format!("{i}? "), "completion": "a"}).to_string() + "\n";
    lab.write("rows.jsonl", (0..60).map(row).collect::<String>());
    let sft = "\n[objective]\nplugin = \"sft\"\n\n[train]\nsteps = 30\nbatch = { sequences = 4 }\noptimizer = { lr = 1e-2 }\n";
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{sft}"));
    lab.run(&[]).succeeds();
    lab
}
