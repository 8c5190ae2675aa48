//! Rows of pairs through the program: what `telos check` shows of them, which are dropped, and which are refused before anything
//! is written.

use std::fs;

use serde_json::json;

use crate::support::lab::{Lab, ROWS, SMALL};

/// Pairs of `rows.jsonl`.
const PAIRS: &str = r#"
[objective]
plugin = "dpo"

[train]
steps = 4
batch = { pairs = 8 }
optimizer = { lr = 1e-3 }
"#;

fn line(prompt: &str, chosen: &str, rejected: &str) -> String {
    format!("{}\n", json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{PAIRS}"));
    lab.write("rows.jsonl", (0..40).map(|i| line(&format!("{i}? "), "yes", "well, no")).collect::<String>());
    lab
}

/// Catches a check that shows only one answer, prompts that are learned, and counts of other things than pairs.
#[test]
fn gotcha_13_a_check_shows_both_answers_and_counts_dropped_pairs() {
    let lab = lab();
    let long = line("a", &"x".repeat(60), "y") + &line("a", "same", "same");
    lab.write("rows.jsonl", fs::read_to_string(lab.at("rows.jsonl")).expect("rows") + &long);
    for objective in ["dpo", "reward"] {
        let found = lab.check("tiny.toml", &[&format!("objective.plugin={objective}"), "data.held_out=0"]);
        let rows = &found["rows"];
        assert_eq!((&rows["kind"], &rows["train"]), (&json!("preference"), &json!(40)), "{found:#}");
        assert_eq!((&rows["dropped_too_long"], &rows["dropped_same"]), (&json!(1), &json!(1)), "{found:#}");
        let example = found["example"].as_str().expect("a row");
        let lines: Vec<&str> = example.lines().collect();
        assert!(lines[0].starts_with("chosen: ") && lines[0].ends_with("? ⟦yes<|endoftext|>⟧"), "{example}");
        assert!(lines[1].starts_with("rejected: ") && lines[1].ends_with("? ⟦well, no<|endoftext|>⟧"), "{example}");
        let prompt =
            |line: &str| line.split_once(": ").expect("a name").1.split('⟦').next().map(|p| p.trim().to_owned());
        assert_eq!(prompt(lines[0]), prompt(lines[1]));
    }
}

/// Catches a world without pairs, and an option that is not passed on.
#[test]
fn the_worlds_pairs_may_be_of_equal_length() {
    let lab = lab();
    let synthetic = "data={source='synthetic',rows=200,tasks=['sort']}";
    let equal = "data={source='synthetic',rows=200,tasks=['sort'],equal_length=true}";
    let wide = "model.context=96";
    let (mixed, equal) = (lab.check("tiny.toml", &[synthetic, wide]), lab.check("tiny.toml", &[equal, wide]));
    assert_eq!((&mixed["rows"]["train"], &mixed["rows"]["held_out"]), (&json!(200), &json!(20)));
    assert!(mixed["train_tokens"].as_u64() > equal["train_tokens"].as_u64(), "{mixed:#} {equal:#}");
}

/// Every mistake names its key or its line, with the remedy, before anything is written.
#[test]
fn options_that_do_not_fit_pairs_are_refused_with_the_remedy() {
    let lab = lab();
    let refused = |sets: &[&str], parts: &[&str]| {
        lab.run(sets).refuses(2, parts);
        assert!(!lab.at("runs").exists(), "something was written");
    };
    refused(&["train.batch={sequences=4}"], &["train.batch.sequences: this data comes in pairs", "pairs = 32"]);
    refused(&["train.batch={prompts=4}"], &["train.batch.prompts: this data comes in pairs"]);
    refused(&["objective.plugin=sft"], &["train.batch.pairs: this data comes in sequences", "tokens = 8192"]);
    refused(&["data.truncation=right"], &["data.truncation", "\"right\" would remove", "left"]);
    refused(
        &["data={path='rows.jsonl'}"],
        &["\"dpo\" learns from preference data, but [data] yields text data", "jsonl"],
    );
    refused(
        &["data.columns={chosen='better'}"],
        &["rows.jsonl:1: needs `better` (data.columns.chosen) and `rejected`, and `prompt` unless both contain it"],
    );
    let sft = "objective.plugin=sft";
    let equal = "data={source='synthetic',equal_length=true}";
    refused(&[sft, "train.batch={tokens=64}", equal], &["data.equal_length: unused"]);
    lab.write("rows.jsonl", json!({"chosen": "q yes", "margin": 1}).to_string());
    refused(
        &[],
        &[
            "rows.jsonl:1: needs `chosen` and `rejected`, and `prompt` unless both contain it",
            "it has `chosen`, `margin`",
        ],
    );
}

/// Catches a reference that computes all rows at a time, regardless of train.micro_batch_tokens. Also catches a trial of the worst
/// batch with half a pair: an odd number of the longest rows fits into 256.
#[test]
fn the_reference_reads_rows_by_micro_batches() {
    let lab = lab();
    lab.write("rows.jsonl", (0..1000).map(|i| line(&format!("{i}? "), "yes", "well, no")).collect::<String>());
    let peak = |free: &str| {
        let found =
            lab.check("tiny.toml", &["train.micro_batch_tokens=256", &format!("objective.reference_free={free}")]);
        found["memory_peak_bytes"].as_u64().expect("bytes")
    };
    let (with, without) = (peak("false"), peak("true"));
    assert!(with < 2 * without, "{with} bytes, and {without} without a reference");
}
