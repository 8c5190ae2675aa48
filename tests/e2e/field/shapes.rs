//! Data files in the layouts that other tools write.

use std::fs;

use serde_json::{Value, json};

use super::case;
use crate::support::lab::{Lab, Run};

/// A tiny model that learns from `rows.jsonl`.
const CASE: &str = r#"
name = "case"
[model]
layers = 1
dim = 16
heads = 2
context = 512
[data]
source = "jsonl"
path = "rows.jsonl"
held_out = 0.0
[[objective]]
plugin = "sft"
[train]
steps = 1
optimizer.lr = 1e-3
batch = { sequences = 1 }
"#;

/// The overrides that make [`CASE`] learn from pairs.
const PAIRS: [&str; 2] = ["objective.0.plugin=dpo", "train.batch={pairs=1}"];

fn of(path: &str) -> String {
    format!("data.path={path}")
}

/// Catches a mark that makes the first row unreadable, and one that is trained as three tokens.
#[test]
fn bom() {
    let lab = case("bom");
    assert_eq!(lab.check("case.toml", &[])["example"], "q: ⟦a<|endoftext|>⟧");
    let text = lab.check("text.toml", &[]);
    assert_eq!(text["train_tokens"], 1001);
}

/// Catches files with rows that are refused, and refusals that do not name the file's format.
#[test]
fn json_messages() {
    let lab = case("json-messages");
    for (file, rows) in [("array.json", 2), ("pretty.json", 1), ("x.jsonl.gz", 1), ("utf16.jsonl", 1)] {
        let found = lab.check("case.toml", &[&of(file)]);
        assert_eq!(
            (&found["rows"]["train"], &found["example"]),
            (&json!(rows), &json!("q: ⟦a<|endoftext|>⟧")),
            "{file}"
        );
    }
    for (file, expected) in [
        ("x.parquet", "x.parquet is a Parquet file that cannot be read ("),
        ("nan.jsonl", "nan.jsonl:1: not JSON: NaN at column 42: JSON has no such number; write null"),
        ("torn.jsonl", "torn.jsonl:2: not JSON: cut off at column 21 (EOF while parsing a string)"),
    ] {
        let answer = lab.ask(&["check", "case.toml", "--set", &of(file)]);
        answer.refuses(2, &[expected]);
        assert!(!answer.err.contains("iconv") && !answer.err.contains("at line"), "{answer:#?}");
    }
    lab.ask(&["check", "case.toml", "--set", &of("x.parquet")]).refuses(2, &["pandas.read_parquet('x.parquet')"]);
}

/// Catches a pointer that is refused as broken JSON.
#[test]
fn lfs_pointer_of_rows() {
    let lab = case("lfs-pointer");
    let expected = ["rows.jsonl is a Git LFS pointer and not the file itself", "git lfs pull"];
    lab.ask(&["check", "case.toml"]).refuses(2, &expected);
    let text = ["check", "case.toml", "--set", "data.source=text", "--set", "objective.0.plugin=ce", "--set"];
    lab.ask(&[&text[..], &["train.batch={tokens=512}"]].concat()).refuses(2, &expected);
}

/// Catches braces and quotes whose loss is reported as the model's.
#[test]
fn eval_of_rows() {
    let lab = case("eval-of-rows");
    let refuse = |file: &str, what: &str| {
        let expected = format!("{file} is {what}, and its syntax would be measured too");
        lab.ask(&["eval", "model", "--data", file]).refuses(2, &[&expected]);
    };
    refuse("rows.jsonl", "a file of rows");
    lab.write("case.toml", CASE);
    refuse("case.toml", "a file of settings");
    lab.write("rows.csv", "prompt,completion\nq,a\n");
    refuse("rows.csv", "a table");
    fs::copy(lab.at("rows.jsonl"), lab.at("rows.txt")).expect("a copy");
    refuse("rows.txt", "a file of rows: every line is an object of JSON");
    lab.write("text.txt", "a text {with braces}\n");
    lab.ask(&["eval", "model", "--data", "text.txt"]).succeeds();
}

/// Catches a prompt that is reduced to the question, and a pair that is refused.
#[test]
fn pairs_prompt_beside_conversations() {
    let lab = case("pairs-prompt-beside-conversations");
    let example = "chosen:   s\nQ\n⟦A<|endoftext|>⟧\nrejected: s\nQ\n⟦B<|endoftext|>⟧";
    assert_eq!(lab.check("case.toml", &[])["example"], example);
}

/// Catches a list that is compared as its JSON text, in the reward and in exact match.
#[test]
fn answer_list() {
    let lab = case("answer-list");
    lab.ask(&["run", "case.toml"]).succeeds();
    assert_eq!(Run(lab.at("runs/case")).train("reward/exact"), [1.0]);
    // This model never generates the rows' words, and every answer contains the empty word.
    lab.write(
        "rows.jsonl",
        "{\"prompt\": \"a\", \"answer\": [\"x\", 7]}\n{\"prompt\": \"b\", \"answer\": [[\"x\"]]}\n",
    );
    let expected = "rows.jsonl:2: `answer`: a list at place 0 of the list";
    lab.ask(&["check", "case.toml"]).refuses(2, &[expected]);
}

/// Catches prompts that lose their roles, answers that are plain strings next to such prompts, and pairs that DPO cannot read back.
#[test]
fn pairs_of_chats() {
    let lab = case("pairs-of-chats");
    let rows: String = (0..6)
        .map(|i| json!({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": i.to_string()}], "id": i}))
        .map(|row| format!("{row}\n"))
        .collect();
    let first = fs::read_to_string(lab.at("rows.jsonl")).expect("rows");
    lab.write("rows.jsonl", format!("{first}\n{rows}"));
    lab.ask(&["pairs", "case.toml", "--out", "out.jsonl", "--samples", "32"]).succeeds();
    let text = fs::read_to_string(lab.at("out.jsonl")).expect("pairs");
    let pairs: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(!pairs.is_empty());
    for pair in &pairs {
        let prompt = pair["prompt"].as_array().expect("messages");
        assert_eq!(prompt.last().expect("a message")["role"], "user", "{pair}");
        assert_eq!(prompt.len(), if pair["id"].is_null() { 1 } else { 2 }, "{pair}");
        for answer in ["chosen", "rejected"] {
            assert_eq!(pair[answer][0]["role"], "assistant", "{pair}");
            assert!(pair[answer][0]["content"].is_string(), "{pair}");
        }
    }
    lab.write("dpo.toml", CASE.replace("rows.jsonl", "out.jsonl"));
    let found = lab.check("dpo.toml", &PAIRS);
    assert_eq!(found["rows"]["train"].as_u64(), Some(pairs.len() as u64), "{found:#}");
}

/// Catches files of the field's tools that are neither read nor named. All hold the same twenty or so rows.
#[test]
fn formats() {
    let lab = case("formats");
    lab.write("case.toml", CASE);
    let train = |file: &str, more: &[&str]| {
        lab.check("case.toml", &[&[of(file).as_str()], more].concat())["rows"]["train"].clone()
    };
    let rows = train("sft_bom.jsonl", &[]);
    for file in [
        "sft.jsonl.gz",
        "sft.parquet",
        "sft.csv",
        "sft_array.json",
        "sft_content_parts.jsonl",
        "sft_sharegpt.jsonl",
        "sft_text.jsonl",
        "sft_alpaca_input.jsonl",
    ] {
        assert_eq!(train(file, &[]), rows, "{file}");
    }
    assert_eq!(train("pref.parquet", &PAIRS), train("pref_hh.jsonl", &PAIRS));
}

/// Other inputs of the same kinds: a damaged archive, a list of lists, keys that are there twice, integers that would be rounded.
#[test]
fn files_of_other_formats_are_refused_with_their_format() {
    let lab = Lab::new();
    lab.write("case.toml", CASE);
    for (bytes, expected) in [
        (b"\x1F\x8B\x08\0garbage".as_slice(), "rows.jsonl is a damaged gzip file ("),
        (b"PK\x03\x04rest", "rows.jsonl is a zip archive or an Office document"),
        (
            b"[[{\"role\": \"user\", \"content\": \"a\"}]]",
            "rows.jsonl:1: expected an object with the row's keys, found a list",
        ),
        (
            b"{\"prompt\": \"a\", \"completion\": \"b\", \"prompt\": \"c\"}",
            "rows.jsonl:1: the key `prompt` occurs twice in one object",
        ),
        (
            b"{\"prompt\": \"a\", \"completion\": \"b\", \"n\": 18446744073709551616}",
            "the integer at column 41 has more than 64 bits",
        ),
        (
            b"{'prompt': 'a', 'completion': 'b'}",
            "rows.jsonl:1: not JSON: ' at column 2: JSON puts strings and keys in double quotes",
        ),
        (b"prompt\tcompletion\na\tb\tc\n", "rows.jsonl:2: 3 cells, and the first line has 2"),
        (b"\x28\xB5\x2F\xFDgarbage", "rows.jsonl is a damaged Zstandard file ("),
        (b"ARROW1\0\0garbage", "rows.jsonl is an Arrow file that is cut off "),
    ] {
        lab.write("rows.jsonl", bytes);
        lab.ask(&["check", "case.toml"]).refuses(2, &[expected]);
    }
    // An identifier of 64 bits is neither rounded nor refused, and its name is reported.
    lab.write("rows.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\", \"id\": 9007199254740993}\r\n");
    assert_eq!(lab.check("case.toml", &[])["rows"]["inexact_columns"], json!(["id"]));
}
