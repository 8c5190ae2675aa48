//! Files of an unexpected kind: pipes, devices and folders where a file is expected; TOML and JSON of great size or depth. Each
//! request ends within the limits of [`answer`].

use std::fs;

use rustix::fs::{CWD, Mode, mkfifoat};

use super::sizes::answer;
use crate::support::lab::{Lab, ROWS, SMALL, TINY, some_text};

/// Puts a pipe without a writer in place of a file.
fn pipe(lab: &Lab, name: &str) {
    _ = fs::remove_file(lab.at(name));
    mkfifoat(CWD, lab.at(name), Mode::RWXU).expect("a pipe");
}

/// A lab with rows, a text and a model.
fn files() -> Lab {
    let lab = Lab::tiny();
    lab.run(&["train.steps=1"]).succeeds();
    fs::rename(lab.at("runs/tiny/checkpoints/step-00000001"), lab.at("model")).expect("moved");
    // A model from outside of a run: without a manifest it has no record of what it was.
    fs::remove_file(lab.at("model/manifest.json")).expect("removed");
    fs::remove_dir_all(lab.at("runs")).expect("removed");
    lab.write("text.txt", some_text(200));
    lab.write("rows.jsonl", "{\"prompt\": \"sort: b a\", \"completion\": \"a b\"}\n".repeat(9));
    lab.write("other.jsonl", "{\"prompt\": \"sort: d c\", \"completion\": \"c d\"}\n");
    let train =
        "[objective]\nplugin = \"sft\"\n[train]\nsteps = 1\nbatch = { sequences = 1 }\noptimizer = { lr = 1e-3 }\n";
    let rows = ROWS.replace("held_out = 0.2", "eval_path = \"other.jsonl\"");
    lab.write("rows.toml", SMALL.to_owned() + &rows + train);
    lab
}

/// Catches a file that is opened whatever its type: opening a pipe waits for a writer for ever, and a device has no end.
#[test]
fn pipes_devices_and_folders_are_refused_wherever_a_file_is_read() {
    let lab = files();
    answer(&lab, &["check", "rows.toml"]).refuses(0, &[]);
    pipe(&lab, "pipe");
    for (what, name) in [("pipe", "pipe"), ("device", "/dev/zero"), ("folder", "model")] {
        let refused = |args: &[&str], parts: &[&str]| answer(&lab, args).refuses(2, parts);
        refused(&["check", name], &[name, what]);
        refused(&["run", name], &[name, what]);
        let tokenizer = format!("tokenizer={{kind=\"file\",path=\"{name}\"}}");
        if what != "folder" {
            for key in ["path", "eval_path"] {
                let set = format!("data.{key}={name}");
                refused(&["check", "rows.toml", "--set", &set], &[name, "not a regular file", "to a file, because"]);
            }
            refused(&["eval", "model", "--data", name], &[name, "not a regular file"]);
            refused(&["eval", "model", "--rows", name], &[name, "not a regular file"]);
            let train = ["tokenizer", "train", name, "--vocab-size", "300", "--out", "new.json"];
            refused(&train, &[name, "not a regular file"]);
            refused(&["check", "rows.toml", "--set", &tokenizer], &["tokenizer.path", name, what]);
        }
        let template = format!("data.chat_template={name}");
        refused(&["check", "rows.toml", "--set", &template], &[name, what]);
        refused(&["eval", "model", "--rows", "rows.jsonl", "--chat-template", name], &[name, what]);
    }
}

/// Catches a file of a run's folder that is opened whatever its type.
#[test]
fn a_pipe_among_a_runs_files_is_refused() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=2"]).succeeds();
    let resume = ["run", "tiny.toml", "--resume", "--set", "train.steps=3"];
    let files = ["experiment.toml", "receipt.json", "checkpoints/LATEST", "metrics.jsonl", "samples.jsonl"];
    for name in files {
        let path = format!("runs/tiny/{name}");
        let file = name.rsplit('/').next().unwrap_or(name);
        let kept = fs::read(lab.at(&path)).expect("a file");
        pipe(&lab, &path);
        let answer = answer(&lab, &resume);
        assert!(matches!(answer.code, Some(0..=2)) && answer.err.contains(file), "{name}: {answer:#?}");
        fs::remove_file(lab.at(&path)).expect("removed");
        if answer.code == Some(0) {
            // LATEST is written again.
            lab.run(&["train.steps=2", "name=other"]).succeeds();
            fs::remove_dir_all(lab.at("runs/tiny")).expect("removed");
            fs::rename(lab.at("runs/other"), lab.at("runs/tiny")).expect("moved");
            continue;
        }
        fs::write(lab.at(&path), kept).expect("written");
    }
}

/// Catches a file of a model's folder that is opened whatever its type.
#[test]
fn a_pipe_among_a_models_files_is_refused() {
    let lab = files();
    let names = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "model.safetensors",
    ];
    for name in names {
        let path = lab.at("model").join(name);
        let whole = fs::read(&path).ok();
        pipe(&lab, &format!("model/{name}"));
        answer(&lab, &["eval", "model", "--data", "text.txt"]).refuses(2, &[name]);
        answer(&lab, &["check", "rows.toml", "--set", "model={from=\"model\"}"]).refuses(2, &[name]);
        fs::remove_file(&path).expect("removed");
        if let Some(bytes) = whole {
            fs::write(&path, bytes).expect("written");
        }
    }
    fs::remove_file(lab.at("model/model.safetensors")).expect("removed");
    pipe(&lab, "model/model.safetensors.index.json");
    answer(&lab, &["eval", "model", "--data", "text.txt"]).refuses(2, &["index.json", "it is a pipe"]);
}

/// Catches a compressed file that is unpacked whatever its size: a few megabytes unpack to gigabytes.
#[test]
fn a_file_that_unpacks_to_more_than_memory_is_refused() {
    let lab = files();
    let mut gzip = std::process::Command::new("sh");
    gzip.args(["-c", "head -c 2000000000 /dev/zero | gzip -1 > rows.jsonl.gz"]).current_dir(lab.path());
    assert!(gzip.status().expect("a shell").success());
    let set = ["--set", "data.path=rows.jsonl.gz"];
    answer(&lab, &[&["check", "rows.toml"][..], &set].concat())
        .refuses(2, &["rows.jsonl.gz", ", half of the ", "write one row per line"]);
}

/// Catches a parser that recurses to the depth of the text, one that takes time by the square of its length, and a list of all of a
/// hundred thousand mistakes.
#[test]
fn deep_and_long_experiments_are_refused_by_line() {
    let lab = Lab::new();
    let deep = 20_000;
    let dotted = vec!["a"; deep].join(".");
    for (text, parts) in [
        (format!("\nx = {}", "[".repeat(deep)), &["odd.toml:2:", "recurs"][..]),
        (format!("\nx = {}{}", "[".repeat(deep), "]".repeat(deep)), &["odd.toml:2:", "recurs"]),
        (format!("\nx = {}1{}", "{a = ".repeat(deep), "}".repeat(deep)), &["odd.toml:2:", "recurs"]),
        (format!("\n{dotted} = 1"), &["odd.toml:2:", "recurs"]),
        (format!("\n[{dotted}]\n"), &["odd.toml:3:", "recurs"]),
        (format!("\n[[{dotted}]]\n"), &["odd.toml:3:", "recurs"]),
        ("[".repeat(deep), &["odd.toml:1:"]),
        ("=\n".repeat(deep), &["odd.toml:1:", "more"]),
        ("[[a]]\n".repeat(deep), &["odd.toml:1:", "unknown key"]),
        ((0..deep).map(|i| format!("a{i} = 1\n")).collect(), &["odd.toml:1:", "unknown key", "more"]),
        ((0..deep).map(|i| format!("[a{i}]\n")).collect(), &["odd.toml:1:", "unknown key", "more"]),
        ("a.b = 1\n".repeat(deep), &["odd.toml:2:", "duplicate key", "more"]),
        (format!("{} = 1", "k".repeat(1 << 20)), &["odd.toml", "larger than 1048576 bytes"]),
        (format!("{} = 1", "k".repeat(1 << 19)), &["odd.toml:1:1", "unknown key"]),
        ("[[stage]]\nname = \"s\"\n".repeat(deep), &["odd.toml", "20000 stages", "at most 256"]),
    ] {
        lab.write("odd.toml", &text);
        answer(&lab, &["check", "odd.toml"]).refuses(2, parts);
    }
}

/// Catches a path of tables that is built and walked by recursion, which overflows the stack.
#[test]
fn deep_overrides_are_refused_by_flag() {
    let lab = Lab::tiny();
    let deep = 20_000;
    let dotted = vec!["a"; deep].join(".");
    for table in ["", "objective.", "backend.", "data."] {
        let set = format!("{table}{dotted}=1");
        answer(&lab, &["check", "tiny.toml", "--set", &set]).refuses(2, &["--set", "tables deep", "at most 32"]);
    }
    for value in [format!("{}{}", "[".repeat(deep), "]".repeat(deep)), format!("{{{dotted}=1}}")] {
        answer(&lab, &["check", "tiny.toml", "--set", &format!("x={value}")]).refuses(2, &["--set x", "recurs"]);
        let option = format!("x={value}");
        answer(&lab, &["plugins", "verify", "sft", "--option", &option]).refuses(2, &["--option x", "recurs"]);
    }
}

/// Catches rows of JSON that are read by recursion to any depth, and a refusal without their line.
#[test]
fn deep_rows_are_refused_by_line() {
    let lab = files();
    let row = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";
    for deep in
        ["[".repeat(100_000), format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), "{\"a\":".repeat(100_000)]
    {
        lab.write("rows.jsonl", format!("{row}{{\"prompt\": \"a\", \"completion\": \"b\", \"x\": {deep}}}\n"));
        answer(&lab, &["check", "rows.toml"]).refuses(2, &["rows.jsonl:2", "recursion limit"]);
    }
    lab.write("tiny.toml", TINY.replace("source = \"synthetic\"\nrows = 200", "path = \"rows.jsonl\""));
    lab.write("rows.jsonl", "[".repeat(100_000));
    _ = answer(&lab, &["check", "tiny.toml"]);
}
