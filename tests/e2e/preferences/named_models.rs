//! Models that an experiment or a command names: each is read with its own architecture, or refused.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    experiments::{DPO, PPO, REWARD, SHARED, lab},
    lab::{Lab, ROWS, Run, SMALL, with_sets},
};

/// Catches figures of a head that does not exist, and answers of an earlier model instead of a damaged one.
#[test]
fn a_model_is_read_with_its_own_architecture_or_refused() {
    let lab = lab(REWARD);
    lab.run(&["train.steps=4", "checkpoint.every=2"]).succeeds();
    lab.ask(&["eval", "runs/tiny", "--data", "rows.jsonl"]).refuses(2, &["runs/tiny", "no language-model head"]);
    let language = Lab::tiny();
    language.run(&[]).succeeds();
    let weights = language.at("runs/tiny/checkpoints/step-00000008/model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).expect("written");
    let args = ["generate", "runs/tiny", "--prompt", "sort: ", "--max-tokens", "2"];
    language.ask(&args).refuses(2, &["runs/tiny names cannot be used", "step-00000008", "step-00000004; name it"]);
    let args = ["generate", "runs/tiny/checkpoints/step-00000004", "--prompt", "sort: ", "--max-tokens", "2"];
    language.ask(&args).succeeds();
}

/// The end token of training ends an answer, whatever config.json names; the KL of answers uses the policy that sampled them.
#[test]
fn gotcha_03_answers_end_at_the_end_token_of_training() {
    let lab = lab(PPO);
    lab.run(&["train.steps=2"]).succeeds();
    let folder = lab.at("runs/tiny/checkpoints/step-00000002");
    let config = folder.join("config.json");
    let mut changed: Value = serde_json::from_slice(&fs::read(&config).expect("a file")).expect("JSON");
    let end = changed["eos_token_id"].clone();
    changed["eos_token_id"] = json!(0);
    let base = lab.at("base");
    fs::create_dir(&base).expect("a folder");
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(folder.join(file), base.join(file)).expect("copied");
    }
    fs::write(base.join("config.json"), changed.to_string()).expect("written");
    let (shape, from) = ("[model]\nlayers = 1\ndim = 32\nheads = 2\ncontext = 48\n", "[model]\nfrom = \"base\"\n");
    let text = fs::read_to_string(lab.at("tiny.toml")).expect("text").replace(shape, from);
    lab.write("again.toml", text);
    let answer = lab.ask(&["run", "again.toml", "--set", "eval.generate=4"]);
    answer.succeeds();
    assert!(answer.err.contains("end-of-text token"), "{answer:#?}");
    let run = Run(lab.at("runs/again"));
    let saved: Value = serde_json::from_slice(&run.saved(12, "config.json")).expect("JSON");
    assert_eq!(saved["eos_token_id"], json!([0, end]));
}

/// Catches an objective that learns from arrays that another one prepared.
#[test]
fn two_objectives_that_prepare_the_same_rollout_array_are_refused() {
    let lab = lab(&PPO.replace(
        "[objective]\nplugin = \"ppo\"",
        "[[objective]]\nplugin = \"ppo\"\n\n[[objective]]\nplugin = \"ppo\"",
    ));
    lab.run(&[]).refuses(2, &["\"ppo\"", "both return"]);
}

/// Catches a value head that was trained on one reward and is used as a fresh critic, or as a reward model.
#[test]
fn gotcha_14_a_value_head_is_neither_a_fresh_critic_nor_a_reward_model() {
    let lab = lab(PPO);
    lab.run(&["critic={from=\"shared\"}", "train.optimizer.lr=3e-2"]).succeeds();
    fs::rename(lab.at("runs/tiny"), lab.at("runs/shared")).expect("renamed");
    let (shape, from) =
        ("[model]\nlayers = 1\ndim = 32\nheads = 2\ncontext = 48\n", "[model]\nfrom = \"runs/shared\"\n");
    let begin = |name: &str, objective: &str| {
        lab.write("tiny.toml", format!("{}{}{}{objective}", SMALL, ROWS, SHARED).replace(shape, from));
        let answer = lab.ask(&["run", "tiny.toml", "--name", name, "--set", "train.steps=1"]);
        answer.succeeds();
        Run(lab.at(&format!("runs/{name}")))
    };
    assert_eq!(begin("again", PPO).train("value/explained_variance")[0], 0.0);
    assert!((begin("rm", REWARD).train("loss")[0] - 2f64.ln()).abs() < 1e-6);
    lab.write("tiny.toml", format!("{}{}{}{PPO}", SMALL, ROWS, SHARED));
    lab.run(&["reward=[{model=\"runs/shared\"}]"]).refuses(2, &["reward", "not a reward model"]);
}

/// Catches numbers of a reference that another path of the backend computed.
#[test]
fn gotcha_22_the_reference_cache_is_keyed_by_how_it_was_computed() {
    let lab = lab(DPO);
    let cached = |name: &str, sets: &[&str]| {
        let args = ["run", "tiny.toml", "--name", name, "--set", "train.steps=1"];
        let answer = lab.ask(&with_sets(&args, sets));
        answer.succeeds();
        assert!(answer.err.contains("log-probabilities were"), "{answer:#?}");
        answer.err.contains("were read from")
    };
    assert!(!cached("a", &[]));
    assert!(!cached("b", &["backend.path=generic"]));
    assert!(cached("c", &[]) && cached("d", &["backend.path=generic"]));
}

/// Catches a score scale that was measured on other weights.
#[test]
fn gotcha_14_a_score_scale_is_saved_with_the_weights_it_was_measured_on() {
    let lab = lab(REWARD);
    let scale = |run: &Run, step| {
        let config: Value = serde_json::from_slice(&run.saved(step, "config.json")).expect("JSON");
        config["telos_scores"].clone()
    };
    lab.run(&["train.steps=8", "checkpoint.every=1", "checkpoint.keep=9", "eval.every=4"]).succeeds();
    let run = lab.tiny_run();
    let measured: Vec<bool> = (1..=8).map(|step| !scale(&run, step).is_null()).collect();
    assert_eq!(measured, [false, false, false, true, false, false, false, true]);
}
