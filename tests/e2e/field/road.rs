//! The main road away from home: the reference pass, evaluation, columns that nothing reads.

use serde_json::{Value, json};

use super::case;

/// Alpaca's rows, whose `input` holds the question. Catches a column that is dropped without a word.
#[test]
fn alpaca_input_dropped() {
    let lab = case("alpaca-input-dropped");
    let small = "[model]\nlayers = 1\ndim = 16\nheads = 2\ncontext = 512\n[train]\nsteps = 1\nbatch = { sequences = 4 }\noptimizer = { lr = 1e-4 }\n";
    lab.write("f.toml", format!("name = \"f\"\ndata = {{ source = \"jsonl\", path = \"rows.jsonl\", held_out = 0.1 }}\nobjective = {{ plugin = \"sft\" }}\n{small}"));
    let sets = ["f.toml", "--set", "data.columns={prompt=\"instruction\",completion=\"output\"}"];
    let found: Value =
        serde_json::from_str(lab.ask(&[&["check", "--json"], &sets[..]].concat()).succeeds()).expect("JSON");
    assert_eq!(found["rows"]["unread_columns"], json!(["input"]));
    let says = "columns that nothing reads: input (what belongs to the prompt must stand in the prompt's own column";
    let text = lab.ask(&[&["check"], &sets[..]].concat());
    assert!(text.succeeds().contains(says), "{text:#?}");
    let run = lab.ask(&[&["run"], &sets[..]].concat());
    run.succeeds();
    assert!(run.err.lines().take(3).any(|line| line.contains(says)), "{run:#?}");
}

/// Catches columns that are named although something reads them: a reward, the split, a part of the row.
#[test]
fn columns_that_something_reads_are_not_named() {
    let lab = case("answer-list");
    lab.write("rows.jsonl", "{\"prompt\": \"a\", \"solution\": \"x\", \"topic\": \"t\", \"note\": \"n\"}\n{\"prompt\": \"b\", \"solution\": \"y\", \"topic\": \"u\", \"note\": \"n\"}\n");
    let sets = ["--set", "reward.0.column=solution", "--set", "data.group_column=topic"];
    let args = [&["check", "case.toml", "--json"], &sets[..]].concat();
    let found: Value = serde_json::from_str(lab.ask(&args).succeeds()).expect("JSON");
    assert_eq!(found["rows"]["unread_columns"], json!(["note"]));
}
