//! Mixtures of files of rows, filters of their lengths, and what `telos data inspect` shows of them.

use serde_json::json;

use crate::support::{
    kills::{kill_often, start_or_resume, with_enough_steps},
    lab::{Dice, Lab, SMALL},
};

/// Learns completions of two files: half of the rows of each epoch are of the smaller one.
const MIXED: &str = r#"
[data]
source = "jsonl"
held_out = 0.2

[[data.mix]]
path = "chat.jsonl"

[[data.mix]]
path = "sums.csv"
columns = { prompt = "sum", completion = "result" }

[objective]
plugin = "sft"

[train]
steps = 12
batch = { sequences = 4 }
optimizer = { lr = 3e-3 }

[eval]
every = 4
"#;

/// 60 rows of one file, and 20 of the other.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", format!("{SMALL}{MIXED}"));
    let line = |i: usize| json!({"prompt": format!("{i}? "), "completion": "y".repeat(1 + i % 20)}).to_string() + "\n";
    lab.write("chat.jsonl", (0..60).map(line).collect::<String>());
    let rows: String = (0..20).map(|i| format!("{i}+{i}=,{},\"a, b\"\n", 2 * i)).collect();
    lab.write("sums.csv", format!("sum,result,note\n{rows}"));
    lab
}

/// Catches an order of several sources that restarts, or depends on where the run was ended; each is read more than once.
#[test]
fn a_killed_run_of_a_mixture_leaves_the_same_bits() {
    with_enough_steps(60, |steps| {
        let length = format!("train.steps={steps}");
        let sets = [length.as_str(), "checkpoint.every=1", "checkpoint.keep=2", "eval.every=7"];
        let (killed, whole) = (lab(), lab());
        let kills = kill_often(&killed, &sets, 6, &mut Dice(11));
        start_or_resume(&killed, &sets).answer().succeeds();
        whole.run(&sets).succeeds();
        killed.tiny_run().has_steps(steps);
        killed.tiny_run().equals(&whole.tiny_run(), steps);
        kills
    });
}

/// Catches a mixture, or a filter, whose counts are not those of the rows, and wrong ones that are not refused.
#[test]
fn a_check_counts_the_rows_of_each_source_and_filter() {
    let lab = lab();
    let found = lab.check("tiny.toml", &["data.held_out=0", "eval.every=0"]);
    let (rows, mix) = (&found["rows"], |i: usize| &found["rows"]["mix"][i]);
    assert_eq!((&rows["train"], &mix(0)["rows"], &mix(1)["rows"]), (&json!(80), &json!(60), &json!(20)), "{found:#}");
    // Of the first file, the answers of 20 characters have the longest rows; of the second, most are shorter than 8.
    let found = lab.check("tiny.toml", &["data.held_out=0", "eval.every=0", "data.filter={min_chars=8,max_chars=23}"]);
    let length = |i: usize| format!("{i}? ").len() + 1 + i % 20;
    let (short, long) = ((0..60).filter(|i| length(*i) < 8).count(), (0..60).filter(|i| length(*i) > 23).count());
    let sums = (0..20).filter(|i| format!("{i}+{i}={}", 2 * i).len() < 8).count();
    let rows = &found["rows"];
    let expected = json!({"min_chars = 8": short + sums, "max_chars = 23": long});
    assert_eq!((&rows["filtered"], &rows["train"]), (&expected, &json!(80 - short - sums - long)), "{found:#}");
    let refused = |set: &str, parts: &[&str]| lab.run(&[set]).refuses(2, parts);
    refused("data.mix.1.columns.completion=resutl", &["sums.csv", "`resutl` (data.mix.1.columns.completion)"]);
    refused(
        "data.mix.1.columns.system=nnote",
        &["sums.csv has a column \"nnote\", which data.mix.1.columns.system names"],
    );
    let twice = "data.mix=[{path=\"chat.jsonl\"},{path=\"chat.jsonl\",columns={prompt=\"prompt\"}}]";
    refused(twice, &["chat.jsonl: is in two sources"]);
    refused("data.mix.1.weight=1e-9", &["data.mix.1.weight = 0.000000001 is so small"]);
    refused("data.mix.1.weight=1e300", &["data.mix.1.weight"]);
    assert!(!lab.at("runs").exists(), "something was written");
}

/// Catches figures that are not those of the files, and rows that are not shown as they are learned.
#[test]
fn files_are_inspected_without_an_experiment() {
    let lab = lab();
    let (column, other) = (["--column", "prompt=sum"], ["--column", "completion=result"]);
    let args = [&["data", "inspect", "sums.csv"], &column[..], &other[..]].concat();
    let text = lab.ask(&args);
    let shown = text.succeeds();
    for part in ["rows              20", "column            note", "0+0=⟦0", "duplicates        0 rows, 0 prompts"] {
        assert!(shown.contains(part), "{shown}");
    }
    let found = lab.ask(&[&args[..], &["--json", "--max-chars", "6"]].concat()).json();
    assert_eq!((&found["rows"], &found["counts"]["kind"]), (&json!(20), &json!("prompt-completion")), "{found:#}");
    let long = (0..20).filter(|i| format!("{i}+{i}={}", 2 * i).len() > 6).count();
    assert_eq!(found["counts"]["filtered"], json!({"max_chars = 6": long}), "{found:#}");
    let types: Vec<&str> =
        found["columns"].as_array().expect("columns").iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(types, ["sum", "result", "note"]);
    lab.write("open.csv", "prompt,completion\na,b\nc,\"d\n");
    lab.ask(&["data", "inspect", "open.csv"])
        .refuses(2, &["open.csv:3: a quotation mark opens a cell here and is not closed"]);
}
