//! Wrong requests: refused with exit code 2, file, line or key and remedy; nothing is left behind.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use crate::support::{
    experiments,
    lab::{Lab, TINY, some_text},
    rig::{library, plugins},
};

/// Requests a run that must be refused with `parts` in the message, and must not change the folder.
#[track_caller]
fn refused(lab: &Lab, sets: &[&str], parts: &[&str]) {
    let before = lab.everything();
    lab.run(sets).refuses(2, parts);
    assert_eq!(lab.everything(), before, "something was left behind");
}

/// A lab whose experiment has `from` replaced by `to`.
#[track_caller]
fn edited(from: &str, to: &str) -> Lab {
    assert_eq!(TINY.matches(from).count(), 1, "{from}");
    let lab = Lab::new();
    lab.write("tiny.toml", TINY.replace(from, to));
    lab
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_name() {
    refused(&edited("steps = 8", "stesp = 8"), &[], &["tiny.toml:22:1", "stesp", "did you mean `steps`?"]);
    refused(&edited("[eval]", "[evaluation]"), &[], &["tiny.toml:26:2", "evaluation"]);
    refused(&Lab::tiny(), &["train.stpes=3"], &["--set train.stpes", "did you mean"]);
}

#[test]
fn a_wrong_type_is_refused_with_the_expected_one() {
    let lab = edited("steps = 8", "steps = \"many\"");
    refused(&lab, &[], &["tiny.toml:22:1", "train.steps", "an integer from 0"]);
    refused(&Lab::tiny(), &["train.optimizer.lr=-1"], &["train.optimizer.lr", "above 0"]);
    refused(&edited("layers = 1", "layers = 1.5"), &[], &["tiny.toml:9:1", "model.layers"]);
}

#[test]
fn broken_toml_and_a_missing_file_are_refused() {
    refused(&edited("[train]", "[train"), &[], &["tiny.toml:21"]);
    let lab = Lab::new();
    refused(&lab, &[], &["tiny.toml", "check the path"]);
    lab.write("tiny.toml", b"name = \"\xff\"");
    refused(&lab, &[], &["tiny.toml", "UTF-8"]);
}

/// Catches an option that is silently ignored: it has no effect with the others as they are.
#[test]
fn an_unused_option_is_refused() {
    refused(&Lab::tiny(), &["data.held_out=0.2"], &["data.held_out", "synthetic"]);
    refused(&Lab::tiny(), &["train.schedule={kind=\"constant\",min_lr_ratio=0.1}"], &["min_lr_ratio", "constant"]);
    refused(&Lab::tiny(), &["model.arch=gpt2", "model.rope_theta=1e4"], &["model.rope_theta", "gpt2"]);
    refused(&Lab::tiny(), &["tokenizer.path=x.json"], &["tokenizer.path", "bytes"]);
}

#[test]
fn an_unknown_option_of_a_plugin_is_refused_with_the_nearest_name() {
    let parts = ["objective.label_smothing", "did you mean `label_smoothing`?"];
    refused(&Lab::tiny(), &["objective.label_smothing=0.1"], &parts);
    refused(&edited("plugin = \"ce\"", "plugin = \"ce\"\nz_los = 1"), &[], &["tiny.toml:20:1", "`z_loss`"]);
    refused(&Lab::tiny(), &["backend.paht=generic"], &["backend.paht", "`path`"]);
    refused(&Lab::tiny(), &["objective.label_smoothing=1.5"], &["objective.label_smoothing", "1"]);
    refused(&Lab::tiny(), &["objective.label_smoothing=1.0"], &["label_smoothing", "below 1"]);
}

#[test]
fn a_missing_plugin_is_refused_with_a_list_of_the_existing_ones() {
    refused(&edited("plugin = \"ce\"", "plugin = \"cee\""), &[], &["tiny.toml:19", "`cee`", "`ce`"]);
    refused(&Lab::tiny(), &["backend.plugin=candel"], &["backend.plugin", "`candel`", "`candle`"]);
}

/// Catches a report that ends at the first mistake, or lists them in the order in which stages found them.
#[test]
fn all_mistakes_are_reported_at_once_sorted_by_line() {
    let lab = Lab::new();
    let text = TINY
        .replace("seed = 7", "seed = -1")
        .replace("threads = 1", "threads = 1\nspeed = 9")
        .replace("plugin = \"ce\"", "plugin = \"cross\"")
        .replace("lr = 1e-2", "lr = 0")
        .replace("prompts = [\"sort: \", \"add: \"]", "prompt = \"sort\"");
    lab.write("tiny.toml", text);
    let before = lab.everything();
    let answer = lab.run(&[]);
    answer.refuses(2, &["mistakes in tiny.toml", "speed", "`cross`", "optimizer.lr", "seed", "prompt"]);
    let lines: Vec<u32> = answer
        .err
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tiny.toml:")?.split(':').next()?.parse().ok())
        .collect();
    assert!(lines.len() >= 5, "{answer:#?}");
    assert!(lines.is_sorted(), "{lines:?}");
    assert_eq!(lab.everything(), before);
}

/// A lab that learns from `text.txt` with this content.
fn text_lab(content: impl AsRef<[u8]>) -> Lab {
    let lab = edited("source = \"synthetic\"\nrows = 200", "path = \"text.txt\"");
    lab.write("text.txt", content);
    lab
}

#[test]
fn missing_empty_or_binary_data_is_refused_with_the_file() {
    let lab = edited("source = \"synthetic\"\nrows = 200", "path = \"nowhere.txt\"");
    refused(&lab, &[], &["nowhere.txt", "there is no file", "check the path"]);
    refused(&lab, &["data.path=*.text"], &["*.text", "no file matches"]);
    refused(&text_lab(""), &[], &["text.txt", "no text"]);
    refused(&text_lab(b"some text\nand \xff\xfe more"), &[], &["text.txt", "UTF-8", "0xFF", "line 2", "iconv"]);
}

/// Catches a token cache that stays in the folder of runs after the refusal.
#[test]
fn text_shorter_than_a_sequence_is_refused() {
    refused(&text_lab("short."), &[], &["text.txt", "fewer than one sequence of context 16"]);
    let sets = ["model.context=4096", "train.batch={sequences=1}"];
    refused(&text_lab(some_text(50)), &sets, &["text.txt", "4096", "smaller context"]);
    refused(&Lab::tiny(), &["model.context=4096"], &["train.batch.tokens", "4096"]);
    refused(&text_lab(some_text(50)), &["data.eval_path=text.txt"], &["text.txt", "both"]);
}

#[test]
fn a_context_longer_than_that_of_the_model_is_refused() {
    let sets = ["train.context_schedule=[[0,16],[4,32]]"];
    refused(&Lab::tiny(), &sets, &["train.context_schedule", "32", "16"]);
}

/// Catches a refusal that is lost, and one that names its backend twice.
#[test]
fn an_unavailable_device_or_dtype_is_refused() {
    let reference = Lab::tiny().run(&["backend.plugin=reference", "backend.device=cuda:0"]);
    reference.refuses(2, &["backend.device: reference: device `cuda:0` is not available"]);
    refused(&Lab::tiny(), &["backend.device=cuda:0"], &["backend.device", "cuda:0"]);
    refused(&Lab::tiny(), &["backend.dtype=f64"], &["backend.dtype", "candle", "f32, bf16, not in f64"]);
}

/// Catches a parameter group that silently matches nothing.
#[test]
fn a_group_without_parameters_is_refused() {
    let sets = ["train.optimizer.groups=[{match=\"*nothing*\",lr_scale=0.1}]"];
    refused(&Lab::tiny(), &sets, &["train.optimizer.groups.0.match", "*nothing*", "names of parameters"]);
}

#[test]
fn an_existing_run_is_refused_with_three_remedies_and_not_changed() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=1"]).succeeds();
    let metrics = lab.tiny_run().bytes("metrics.jsonl");
    refused(&lab, &["train.steps=1"], &["\"tiny\" exists already", "--resume", "--name", "remove"]);
    assert!(metrics == lab.tiny_run().bytes("metrics.jsonl"));
    refused(&lab, &["name=../tiny"], &["name"]);
}

/// A saved model, to be damaged.
fn saved_model() -> Lab {
    let lab = Lab::tiny();
    lab.run(&["train.steps=1", "sample.every=0"]).succeeds();
    fs::rename(lab.at("runs/tiny/checkpoints/step-00000001"), lab.at("model")).expect("moved");
    // A model from outside of a run: without a manifest it has no record of what it was.
    fs::remove_file(lab.at("model/manifest.json")).expect("removed");
    fs::remove_dir_all(lab.at("runs")).expect("removed");
    let text = TINY.replace("layers = 1\ndim = 16\nheads = 2\ncontext = 16", "from = \"model\"");
    lab.write("tiny.toml", text);
    lab
}

/// A safetensors file, read and written by hand.
struct Tensors(BTreeMap<String, (Value, Vec<u8>)>);

impl Tensors {
    fn read(path: &Path) -> Tensors {
        let bytes = fs::read(path).expect("a file");
        let size = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + size]).expect("JSON");
        let tensor = |(name, info): (String, Value)| {
            let at = |n: usize| 8 + size + info["data_offsets"][n].as_u64().expect("an offset") as usize;
            let data = bytes[at(0)..at(1)].to_vec();
            (name, (info, data))
        };
        Tensors(header.into_iter().filter(|(name, _)| name != "__metadata__").map(tensor).collect())
    }

    fn write(&self, path: &Path) {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, (info, bytes)) in &self.0 {
            let mut info = info.clone();
            info["data_offsets"] = json!([data.len(), data.len() + bytes.len()]);
            header.insert(name.clone(), info);
            data.extend(bytes);
        }
        let header = serde_json::to_vec(&header).expect("JSON");
        let size = (header.len() as u64).to_le_bytes();
        fs::write(path, [size.as_slice(), &header, &data].concat()).expect("written");
    }
}

const NORM: &str = "model.layers.0.input_layernorm.weight";

/// Catches a loader that fills what is missing, ignores what is extra, reshapes what does not fit, or trains from NaN.
#[test]
fn a_model_with_a_missing_extra_misshaped_or_nan_tensor_is_refused() {
    let lab = saved_model();
    let file = lab.at("model/model.safetensors");
    let whole = fs::read(&file).expect("a file");
    let damaged = |change: fn(&mut Tensors), parts: &[&str]| {
        let mut tensors = Tensors::read(&file);
        change(&mut tensors);
        tensors.write(&file);
        refused(&lab, &[], parts);
        // The other commands refuse it too.
        lab.write("some.txt", some_text(20));
        lab.ask(&["eval", "model", "--data", "some.txt"]).refuses(2, parts);
        fs::remove_file(lab.at("some.txt")).expect("removed");
        fs::write(&file, &whole).expect("written");
    };
    damaged(|all| _ = all.0.remove(NORM), &["model", NORM, "missing"]);
    damaged(
        |all| {
            let norm = all.0[NORM].clone();
            all.0.insert("model.layers.7.input_layernorm.weight".into(), norm);
        },
        &["model", "model.layers.7.input_layernorm.weight", "extra"],
    );
    damaged(
        |all| {
            let (info, data) = all.0.get_mut(NORM).expect("a norm");
            info["shape"] = json!([8]);
            data.truncate(8 * 4);
        },
        &["model", NORM, "[8]", "[16]"],
    );
    damaged(
        |all| all.0.get_mut(NORM).expect("a norm").1[..4].copy_from_slice(&f32::NAN.to_le_bytes()),
        &["model.safetensors", NORM, "NaN", "element 0"],
    );
    fs::write(&file, &whole[..whole.len() / 2]).expect("written");
    refused(&lab, &[], &["model.safetensors", "truncated"]);
    fs::remove_file(&file).expect("removed");
    refused(&lab, &[], &["model.safetensors"]);
}

/// Catches ids beyond the embedding, which would read foreign memory or panic in the first step.
#[test]
fn a_tokenizer_larger_than_the_models_vocabulary_is_refused() {
    let lab = saved_model();
    lab.write("text.txt", some_text(500));
    let train = ["tokenizer", "train", "text.txt", "--vocab-size", "300", "--out", "large.json"];
    lab.ask(&train).succeeds();
    let sets = ["tokenizer.kind=file", "tokenizer.path=large.json"];
    refused(&lab, &sets, &["tokenizer", "large.json", "257", "use the model's own tokenizer"]);
}

/// Catches a vocabulary that is ignored, and one that the tokenizer's ids overrun.
#[test]
fn a_vocabulary_may_be_larger_than_that_of_the_tokenizer_but_not_smaller() {
    let lab = Lab::tiny();
    let check = |vocab: &str| lab.ask(&["check", "tiny.toml", "--json", "--set", vocab]);
    let parameters = |vocab| -> Option<u64> {
        serde_json::from_str::<Value>(check(vocab).succeeds()).expect("JSON")["parameters"].as_u64()
    };
    let (own, padded) = (parameters("model.vocab=257"), parameters("model.vocab=320"));
    assert_eq!(padded.zip(own).map(|(a, b)| a - b), Some(2 * 63 * 16), "embedding and head");
    check("model.vocab=256").refuses(2, &["model.vocab", "257 tokens", "raise model.vocab"]);
}

#[test]
fn a_missing_model_is_refused() {
    let lab = saved_model();
    refused(&lab, &["model.from=nowhere"], &["model.from", "nowhere"]);
    fs::create_dir(lab.at("empty")).expect("a folder");
    refused(&lab, &["model.from=empty"], &["model.from", "empty", "config.json"]);
}

/// Catches a check that leaves traces, or finds less than the run.
#[test]
fn check_refuses_what_run_refuses() {
    let lab = text_lab("short.");
    let before = lab.everything();
    lab.ask(&["check", "tiny.toml"]).refuses(2, &["text.txt", "fewer than one sequence"]);
    lab.ask(&["check", "tiny.toml", "--set", "train.stesp=1"]).refuses(2, &["did you mean `steps`?"]);
    assert_eq!(lab.everything(), before);
}

/// Catches a lock that is not read, and results of two different plugins under one name.
#[test]
fn a_plugin_whose_bytes_changed_since_the_lock_is_refused_without_update_lock() {
    let lab = Lab::tiny();
    let original = library(&plugins(), "objective-ce");
    let copy = lab.at("mine").join(original.file_name().expect("a file"));
    fs::create_dir(lab.at("mine")).expect("a folder");
    let bytes = fs::read(original).expect("a library");
    fs::write(&copy, &bytes).expect("written");
    let run = |name: &str, more: &[&str]| {
        let args = ["run", "tiny.toml", "--plugins", "mine", "--set", "train.steps=1", "--name", name];
        lab.ask(&[&args, more].concat())
    };
    run("a", &[]).succeeds();
    // Bytes after the end of a library change nothing but its hash.
    fs::write(&copy, [&bytes[..], b"x"].concat()).expect("written");
    let before = lab.everything();
    run("b", &[]).refuses(2, &["objective `ce`", "plugins.lock", "--update-lock", "mine"]);
    assert_eq!(lab.everything(), before);
    run("b", &["--update-lock"]).succeeds();
    run("c", &[]).succeeds();
}

/// Catches names of rewards in an objective's options that are found to be wrong only with the first rollout, and a refusal that
/// does not name the option or the rewards that there are.
#[test]
fn an_objective_that_reads_an_unknown_reward_is_refused_at_its_opening() {
    let lab = experiments::lab(experiments::PPO);
    let why = |option: &str, id: &str| {
        format!("--set objective.{option}: objective \"{id}\" reads the reward \"nope\"; there are: length")
    };
    lab.run(&["objective.token_rewards=[\"nope\"]"]).refuses(2, &[&why("token_rewards", "ppo")]);
    let grpo = experiments::PPO
        .replace("\"ppo\"\nwhiten_advantages = true", "\"grpo\"")
        .replace("epochs", "samples = 2\nepochs");
    let lab = experiments::lab(&grpo);
    let sets = ["objective.aggregation=normalize-then-sum", "objective.rewards=[\"nope\"]"];
    lab.run(&sets).refuses(2, &[&why("rewards", "grpo")]);
    // The reward is there, but gives neither parts nor numbers per token.
    let gives = "but the reward \"length\" gives only: `reward.length`";
    lab.run(&["objective.token_rewards=[\"length\"]"])
        .refuses(2, &["--set objective.token_rewards: ", "`reward.length.token`", gives]);
    let part = "objective.rewards=[\"length.style\"]";
    lab.run(&[sets[0], part]).refuses(2, &["--set objective.rewards: ", "`reward.length.style`", gives]);
    lab.run(&["objective.aggregation=normalize-then-sum", "objective.rewards=[\"length\"]", "train.steps=1"])
        .succeeds();
}
