//! Reports of `check` and of a run's first lines about the data: columns and keys that nothing reads, rows that are read again and
//! again, and notes on models and tokenizers. Also requests that are refused before anything starts.

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
context = 256
[data]
source = "jsonl"
path = "rows.jsonl"
held_out = 0.0
[[objective]]
plugin = "sft"
[train]
steps = 1
optimizer.lr = 1e-3
batch = { sequences = 4 }
"#;

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn lab(rows: &[Value]) -> Lab {
    let lab = Lab::new();
    lab.write("case.toml", CASE);
    lab.write("rows.jsonl", lines(rows));
    lab
}

fn check(lab: &Lab, sets: &[&str]) -> Value {
    lab.check("case.toml", sets)
}

/// Whether a check's notes contain this.
fn notes_say(found: &Value, words: &str) -> bool {
    found["notes"]
        .as_array()
        .is_some_and(|notes| notes.iter().any(|note| note.as_str().is_some_and(|n| n.contains(words))))
}

/// The output of a run before its first step.
fn first_lines(lab: &Lab, sets: &[&str]) -> String {
    let answer = lab.ask(&[&["run", "case.toml", "--name", "told"], sets].concat());
    answer.succeeds();
    answer.err
}

fn pair(prompt: &str, completion: &str) -> Value {
    json!({"prompt": prompt, "completion": completion})
}

/// Catches keys of messages, columns of numbers and documents that are dropped without a note, in `check` or in `run`, and a column
/// that an objective reads but that is reported as unread.
#[test]
fn unread_inputs_are_named() {
    let answer = |more: Value| {
        let mut message = json!({"role": "assistant", "content": "a"});
        message.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"messages": [{"role": "user", "content": "q"}, message], "weight": 0.5, "good": true})
    };
    let rows = [
        answer(json!({"reasoning_content": "r"})),
        answer(json!({"name": "n", "images": ["i"]})),
        answer(json!({"name": "m"})),
    ];
    let lab = lab(&rows);
    let found = check(&lab, &[]);
    assert_eq!(found["rows"]["unwritten_keys"], json!({"images": 1, "name": 2, "reasoning_content": 1}));
    assert_eq!(found["rows"]["undeclared_columns"], json!(["good", "weight"]));
    let output = first_lines(&lab, &[]);
    for words in [
        "keys of messages that the chat template does not write: images in 1 row, name in 2 rows, reasoning_content in 1 row",
        "columns of numbers that no objective, reward or option names: good, weight",
    ] {
        assert!(output.lines().take(3).any(|line| line.contains(words)), "{words}: {output}");
    }
    let weighted = check(&lab, &["objective.0.plugin=weighted-sft"]);
    assert_eq!(weighted["rows"]["undeclared_columns"], json!(["good"]));

    let documents = json!({"prompt": "p", "completion": "c", "documents": [{"text": "t"}]});
    lab.write("rows.jsonl", lines(&[documents]));
    assert_eq!(check(&lab, &[])["rows"]["unread_columns"], json!(["documents"]));
    let reads = "{{ documents[0].text }}{% for m in messages %}{{ m.content }}{% endfor %}";
    lab.write("t.jinja", reads);
    assert_eq!(check(&lab, &["data.chat_template=t.jinja"])["rows"]["unread_columns"], Value::Null);
    lab.write("t.jinja", reads.replace("{{ documents[0].text }}", ""));
    assert_eq!(check(&lab, &["data.chat_template=t.jinja"])["rows"]["unread_columns"], json!(["documents"]));
}

/// Catches a batch that reads all rows several times in each step without a note, and a note although nothing is read again.
#[test]
fn a_batch_larger_than_the_data_is_noted() {
    let lab = lab(&[pair("a", "b"), pair("c", "d")]);
    let expected = "every step reads each of the data's 2 rows at least 2 times";
    assert!(notes_say(&check(&lab, &[]), expected));
    assert!(first_lines(&lab, &[]).contains(expected));
    let none = |sets: &[&str]| assert!(!notes_say(&check(&lab, sets), "every step reads"), "{sets:?}");
    none(&["train.batch={sequences=2}"]);
    none(&["train.batch={sequences=1}"]);
    // By tokens: each row has two, its end counted.
    none(&["model.context=4", "train.batch={tokens=4}"]);
    // A row that fits only in part is not taken.
    none(&["model.context=4", "train.batch={tokens=5}"]);
    let tokens = ["model.context=4", "train.batch={tokens=6}"];
    assert!(notes_say(&check(&lab, &tokens), "every step reads some of the data's 2 rows twice"));
    lab.write("case.toml", CASE.replace("steps = 1", "epochs = 1"));
    none(&[]);
}

/// Catches notes on a model that only a run gives: dropout that is ignored, and an end of answers outside of the vocabulary.
#[test]
fn check_prints_notes_on_the_model_too() {
    let lab = case("eval-of-rows");
    let path = lab.at("model/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a config")).expect("JSON");
    config["attention_dropout"] = json!(0.1);
    config["eos_token_id"] = json!([256, 999]);
    fs::write(&path, config.to_string()).expect("written");
    fs::remove_file(lab.at("model/generation_config.json")).expect("removed");
    lab.write("rows.jsonl", lines(&[pair("a", "b")]));
    let model = "[model]\nlayers = 1\ndim = 16\nheads = 2\ncontext = 256\n";
    lab.write("case.toml", CASE.replace(model, "[model]\nfrom = \"model\"\n"));
    let (found, output) = (check(&lab, &[]), first_lines(&lab, &[]));
    for words in [
        "`attention_dropout` = 0.1 has no effect",
        "`eos_token_id` contains the token id 999, but the vocabulary has 260",
    ] {
        assert!(notes_say(&found, words), "{found:#}");
        assert!(output.contains(words), "{output}");
    }
}

/// Catches a stage that cannot be written once the stages before it have run.
#[test]
fn a_stage_named_like_a_file_of_its_folder_is_refused() {
    let lab = case("stage-name-dot");
    let text = fs::read_to_string(lab.at("p.toml")).expect("a pipeline");
    lab.write("p.toml", text.replacen("name = \"lr-0.05\"", "name = \"pipeline.toml\"", 1));
    for command in ["check", "run"] {
        lab.ask(&[command, "p.toml"])
            .refuses(2, &["stage.name: \"pipeline.toml\" is reserved for a file or folder that Telos writes"]);
        assert!(!lab.at("runs").exists(), "{command}");
    }
}

/// Catches JSON that is learned as text.
#[test]
fn rows_are_not_trained_on_as_text() {
    let lab = Lab::new();
    lab.write("text.jsonl", "{\"text\": \"once\"}\n{\"text\": \"upon\"}\n");
    let sets = [
        "--set",
        "data.source=text",
        "--set",
        "data.path=text.jsonl",
        "--set",
        "objective.0.plugin=ce",
        "--set",
        "train.batch={tokens=512}",
    ];
    lab.write("case.toml", CASE);
    let expected = ["text.jsonl is a file of rows, and not running text", "jq -r .text text.jsonl > text.txt"];
    lab.ask(&[&["run", "case.toml"], &sets[..]].concat()).refuses(2, &expected);
}

/// Catches `telos eval --rows` on pairs, on nothing, on prompts longer than the context, and right answers that `--out` leaves out.
#[test]
fn eval_of_rows_reads_them_or_reports_what_it_found() {
    let lab = case("eval-of-rows");
    let eval = |rows: &str, more: &[&str]| {
        lab.write("r.jsonl", rows);
        lab.ask(&[&["eval", "model", "--rows", "r.jsonl", "--json"], more].concat())
    };
    let whole = lines(&[json!({"prompt": "p", "chosen": "c", "rejected": "d"})]);
    let expected = [
        "r.jsonl: the rows are pairs, expected prompts with completions",
        "completion: .chosen",
        "--rows chosen.jsonl",
    ];
    eval(&whole, &[]).refuses(2, &expected);
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let implicit = json!({"chosen": [turn("user", "q"), turn("assistant", "a")], "rejected": [turn("user", "q"), turn("assistant", "b")]});
    eval(&lines(&[implicit]), &[]).refuses(2, &expected);
    for nothing in ["", "[]", "\n"] {
        eval(nothing, &[]).refuses(2, &["r.jsonl: there is no row to evaluate"]);
    }
    // A context of 256: what of a prompt leaves room for the answer is read, and a completion that never fits is refused.
    let long = "x".repeat(400);
    let figures: Value =
        serde_json::from_str(eval(&lines(&[json!({"prompt": long, "answer": ["a", "bc"]})]), &[]).succeeds())
            .expect("JSON");
    assert_eq!((&figures["answers"], &figures["rows"]["truncated"]), (&json!(1), &json!(1)));
    eval(&lines(&[pair(&long, "a")]), &[]).refuses(2, &["r.jsonl: no row is short enough", "context"]);
    eval(&lines(&[json!({"prompt": "p", "completion": null})]), &[]).refuses(2, &["r.jsonl:1", "`completion` is null"]);
    eval(&lines(&[pair("p", "c"), json!({"prompt": "p", "answer": "c"})]), &[])
        .refuses(2, &["r.jsonl:2: needs `messages`"]);
    let rows = [json!({"prompt": "p", "answer": ["a", "b", "c"]}), json!({"prompt": "q", "answer": "a"})];
    eval(&lines(&rows), &["--out", "out.jsonl"]).succeeds();
    let out = fs::read_to_string(lab.at("out.jsonl")).expect("answers");
    let answers: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&answers[0]["expected"], &answers[0]["also_right"]), (&json!("a"), &json!(["b", "c"])));
    assert_eq!((&answers[1]["expected"], &answers[1]["also_right"]), (&json!("a"), &Value::Null));
    // A text file with rows is refused with the other command.
    lab.write("t.txt", "[{\"prompt\": \"a\"}]");
    lab.ask(&["eval", "model", "--data", "t.txt"])
        .refuses(2, &["t.txt is a file of JSON", "telos eval MODEL --rows t.txt"]);
}

/// Catches whole numbers beyond 64 bits that are rounded, or written as an internal object, from prompts to pairs.
#[test]
fn pairs_keep_large_numbers() {
    let lab = case("pairs-of-chats");
    let large = "123456789012345678901234567890";
    let row = |i: usize| {
        format!("{{\"prompt\": [{{\"role\": \"user\", \"content\": \"{i}\", \"id\": {large}}}], \"n\": [{i}]}}\n")
    };
    lab.write("rows.jsonl", (0..6).map(row).collect::<String>());
    lab.ask(&["pairs", "case.toml", "--out", "out.jsonl", "--samples", "32"]).succeeds();
    let text = fs::read_to_string(lab.at("out.jsonl")).expect("pairs");
    assert!(text.lines().count() > 0);
    for line in text.lines() {
        assert!(line.contains(&format!("\"id\":{large}}}")), "{line}");
    }
    // In a column they would reach rewards rounded.
    lab.write("rows.jsonl", format!("{{\"prompt\": \"p\", \"n\": {large}}}\n"));
    let expected =
        ["rows.jsonl:1: the integer at column", "has more than 64 bits", "write it as a string, or remove `n`"];
    lab.ask(&["pairs", "case.toml", "--out", "new.jsonl", "--samples", "2"]).refuses(2, &expected);
}

/// Catches a refusal without the place of the byte, and a run's folder that a refusal leaves behind.
#[test]
fn a_template_that_is_not_utf_8_is_refused_by_its_byte() {
    let lab = lab(&[pair("a", "b")]);
    lab.write("t.jinja", b"{# caf\xE9 #}{% for m in messages %}{{ m.content }}{% endfor %}");
    let expected = ["data.chat_template", "byte 0xE9 at offset 6 (line 1)", "iconv -f LATIN1 -t UTF-8 t.jinja"];
    lab.ask(&["run", "case.toml", "--set", "data.chat_template=t.jinja"]).refuses(2, &expected);
    assert!(!Run(lab.at("runs/case")).0.exists());
}
