//! Sizes at the end of their type or beyond memory: every one gives a result, or an error that names it.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    lab::{Lab, SMALL, TINY, some_text},
    rig::Answer,
};

/// KiB of address space, so that a size that is not compared with memory fails here and not only on a smaller machine.
const ROOM: &str = "2097152";

/// Output of telos within [`ROOM`]; fails if it still runs after two minutes, and if it does not end by itself.
#[track_caller]
pub fn answer(lab: &Lab, args: &[&str]) -> Answer {
    let telos = lab.command(args);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c 0; ulimit -v \"$0\"; exec \"$@\"", ROOM]).arg(telos.get_program());
    command.args(telos.get_args()).current_dir(lab.path()).env_remove("TELOS_PLUGINS");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell");
    let begun = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if begun.elapsed() > Duration::from_secs(120) {
            child.kill().expect("killed");
            panic!("{args:?} does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
    let answer = Answer::from_output(child.wait_with_output().expect("an answer"));
    let ends_itself = [Some(0), Some(1), Some(2)].contains(&answer.code);
    let crashes =
        ["memory allocation of", "panicked", "SIGABRT", "killed"].iter().any(|sign| answer.err.contains(sign));
    assert!(ends_itself && !crashes, "{args:?}: {answer:#?}");
    answer
}

/// [`TINY`] with rows of another kind.
fn experiment(objective: &str, batch: &str, more: &str) -> String {
    TINY.replace("plugin = \"ce\"", &format!("plugin = \"{objective}\""))
        .replace("context = 16", "context = 64")
        .replace("tokens = 128", batch)
        + more
}

/// A lab with an experiment of each kind of batch, and their files.
fn kinds() -> (Lab, [&'static str; 3]) {
    let lab = Lab::tiny();
    lab.write("pairs.toml", experiment("dpo", "pairs = 4", ""));
    let rollout = "\n[[reward]]\nplugin = \"world\"\n\n[rollout]\nprompts = 8\nsamples = 2\nmax_new_tokens = 8\n";
    lab.write("rollouts.toml", experiment("ppo", "prompts = 4", rollout).replace("[eval]", "[eval]\ngenerate = 4"));
    (lab, ["tiny.toml", "pairs.toml", "rollouts.toml"])
}

/// Every integer key with its largest value, from the reference that telos prints.
fn integers(lab: &Lab) -> Vec<(String, u64)> {
    let reference = lab.ask(&["run", "--help-keys"]).succeeds().to_owned();
    let (mut found, mut key) = (Vec::new(), "");
    for line in reference.lines() {
        match line.strip_prefix("    ") {
            None => key = line,
            Some(form) => {
                let form = form.split(';').next().unwrap_or_default();
                if let Some(range) = form.strip_prefix("an integer from ") {
                    let most = range.split_once(" to ").and_then(|(_, most)| most.parse().ok());
                    // What 4096 layers keep for the backward pass is not counted beforehand, and fills this room.
                    let most = if key == "model.layers" { 1024 } else { most.unwrap_or(1 << 40) };
                    found.push((key.to_owned(), most));
                } else if form.starts_with("a number of steps (integer)")
                    || form.starts_with("a list of [step, tokens]")
                {
                    found.push((key.to_owned(), 1 << 40));
                }
            }
        }
    }
    assert!(found.len() > 30 && found.iter().any(|(key, most)| key == "data.rows" && *most == 1 << 32), "{found:?}");
    found
}

/// Catches a size that is allocated before it is compared with memory, one whose product with another overflows, and one whose
/// loop does not end, for every key of the schema.
#[test]
fn every_integer_key_accepts_its_largest_value_or_refuses_it_by_name() {
    let (lab, files) = kinds();
    let keys = integers(&lab);
    let halves = keys.split_at(keys.len() / 2);
    thread::scope(|scope| {
        for keys in [halves.0, halves.1] {
            let (lab, files) = (&lab, &files);
            scope.spawn(move || {
                for (key, most) in keys {
                    for file in *files {
                        let beyond =
                            [i64::MAX as u64, u64::MAX].into_iter().filter(|value| file == files[2] && value > most);
                        for value in [*most].into_iter().chain(beyond) {
                            let list = key == "train.context_schedule";
                            let set = if list { format!("{key}=[[0,{value}]]") } else { format!("{key}={value}") };
                            let answer = answer(lab, &["check", file, "--set", &set]);
                            // Sizes of a model together are the table's; a key that no longer fits another one names that and the value; what a backend cannot allocate, it calls so.
                            let table = key.split_once('.').map_or(key.as_str(), |(table, _)| table);
                            let names = |part: &str| answer.err.contains(part);
                            let named = answer.code == Some(0)
                                || names(table)
                                || names(&value.to_string())
                                || names("out of memory");
                            assert!(named, "{set} in {file}: {answer:#?}");
                        }
                    }
                }
            });
        }
    });
}

/// Catches a size that only a run allocates, and an error without one of its numbers.
#[test]
fn sizes_beyond_memory_are_refused_with_needed_and_available_memory() {
    let (lab, [text, pairs, rollouts]) = kinds();
    for (file, set, parts) in [
        (text, "data.rows=4294967296", &["data.rows", "4294967296", "4.0 TiB"][..]),
        (text, "data.held_out_rows=4294967296", &["data.held_out_rows", "4294967296", "4.0 TiB"]),
        (text, "model.vocab=268435456", &["model", "parameters", "128.0 GiB"]),
        (text, "train.batch.tokens=2147483647", &["train.batch.tokens", "2147483647", "32.0 GiB"]),
        (pairs, "train.batch.pairs=16777216", &["train.batch.pairs", "16777216"]),
        (rollouts, "rollout.prompts=16777216", &["rollout.prompts", "33554432 answers"]),
    ] {
        for command in ["check", "run"] {
            let answer = answer(&lab, &[command, file, "--set", set]);
            answer.refuses(2, parts);
            answer.refuses(2, &["of memory are needed, and", "GiB are available"]);
        }
    }
    let epochs = lab.at("epochs.toml");
    fs::write(epochs, TINY.replace("steps = 8", "epochs = 1e9")).expect("written");
    answer(&lab, &["check", "epochs.toml"]).refuses(2, &["train.epochs", "give train.steps"]);
    assert!(!lab.at("runs").exists(), "nothing was started");
}

/// Catches a flag without a bound: samples are stored in a list, and threads are started.
#[test]
fn flags_accept_their_largest_value_or_refuse_it_by_name() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=1"]).succeeds();
    lab.write("text.txt", some_text(50));
    lab.write("rows.jsonl", r#"{"prompt": "sort: a", "completion": "a"}"#);
    let generate = ["generate", "runs/tiny", "--prompt", "sort: "];
    let eval = ["eval", "runs/tiny", "--data", "text.txt"];
    let rows = ["eval", "runs/tiny", "--rows", "rows.jsonl"];
    let compare = ["compare", "tiny.toml", "--no-plot", "--backends", "candle"];
    let pairs = ["pairs", "tiny.toml", "--out", "new.jsonl"];
    let train = ["tokenizer", "train", "text.txt", "--out", "t.json"];
    let backend = ["plugins", "verify", "candle", "--only", "cast"];
    let objective = ["plugins", "verify", "sft", "--only", "masked"];
    for value in ["2147483648", "4294967296", "9007199254740992", "9223372036854775807", "18446744073709551615"] {
        for (command, flag, is_refused) in [
            (&generate[..], "--samples", true),
            (&generate, "--max-tokens", false),
            (&generate, "--top-k", true),
            (&generate, "--seed", false),
            (&generate, "--threads", true),
            (&eval, "--threads", true),
            (&rows, "--generate", false),
            (&compare, "--steps", true),
            (&compare, "--rounds", true),
            (&pairs, "--samples", true),
            (&train, "--vocab-size", true),
            (&backend, "--threads", true),
            (&backend, "--limit", false),
            (&objective, "--vocabulary", value != "2147483648"),
        ] {
            let answer = answer(&lab, &[command, &[flag, value]].concat());
            assert_eq!(answer.code, Some(if is_refused { 2 } else { 0 }), "{command:?} {flag} {value}: {answer:#?}");
            assert!(!is_refused || answer.err.contains(flag), "{flag}: {answer:#?}");
        }
    }
    let many = [&generate[..], &["--samples", "16777216"]].concat();
    answer(&lab, &many).refuses(2, &["--samples 16777216", "of memory are needed", "lower --samples"]);
}

/// Catches a model's file that is trusted: sizes out of range, of another type, and tensors longer than the file.
#[test]
fn absurd_sizes_in_a_models_files_are_refused_by_file_and_key() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=1"]).succeeds();
    fs::rename(lab.at("runs/tiny/checkpoints/step-00000001"), lab.at("model")).expect("moved");
    // A model from outside of a run: without a manifest it has no record of what it was.
    fs::remove_file(lab.at("model/manifest.json")).expect("removed");
    let config = fs::read_to_string(lab.at("model/config.json")).expect("a config");
    lab.write("text.txt", some_text(50));
    let refused = |parts: &[&str]| answer(&lab, &["eval", "model", "--data", "text.txt"]).refuses(2, parts);
    let sizes = [
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "max_position_embeddings",
        "vocab_size",
    ];
    for key in sizes {
        for value in [json!(1_000_000_000), json!(i64::MAX), json!(u64::MAX), json!(-1), json!(1.5), json!(1e300)] {
            let mut changed: serde_json::Value = serde_json::from_str(&config).expect("JSON");
            assert!(changed[key].is_u64(), "{key} in {config}");
            changed[key] = value;
            fs::write(lab.at("model/config.json"), changed.to_string()).expect("written");
            refused(&["model"]);
        }
    }
    // As large as the config's format allows, and larger than memory.
    let long = config.replace("\"max_position_embeddings\": 16", "\"max_position_embeddings\": 268435456");
    assert_ne!(long, config);
    fs::write(lab.at("model/config.json"), long).expect("written");
    refused(&["of memory are needed"]);
    fs::write(lab.at("model/config.json"), &config).expect("written");
    let whole = fs::read(lab.at("model/model.safetensors")).expect("weights");
    for (dtype, shape, offsets) in [
        ("F32", json!([u64::MAX]), json!([0, 8])),
        ("F32", json!([1_u64 << 62]), json!([0, u64::MAX])),
        ("U8", json!([u64::MAX]), json!([0, u64::MAX])),
        ("U8", json!([u64::MAX - 7]), json!([0, u64::MAX - 7])),
        ("F32", json!([2]), json!([8, 0])),
    ] {
        let header =
            json!({"model.norm.weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).to_string();
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        fs::write(lab.at("model/model.safetensors"), file).expect("written");
        refused(&["model.safetensors"]);
    }
    for length in [u64::MAX, 1 << 40, 0] {
        fs::write(lab.at("model/model.safetensors"), [&length.to_le_bytes()[..], &whole[8..]].concat())
            .expect("written");
        refused(&["model.safetensors"]);
    }
}

/// Catches a row with a small model that is refused because the bound is used as the size: the usual sizes still fit.
#[test]
fn usual_sizes_are_not_refused() {
    let lab = Lab::new();
    lab.write("usual.toml", SMALL.to_owned() + "[data]\nsource = \"synthetic\"\n[objective]\nplugin = \"sft\"\n[train]\nsteps = 1\nbatch = { sequences = 64 }\noptimizer = { lr = 1e-3 }\n");
    let answer = answer(&lab, &["check", "usual.toml"]);
    assert_eq!(answer.code, Some(0), "{answer:#?}");
}
