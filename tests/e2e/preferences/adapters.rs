//! Adapters: what a run with `model.lora` needs, leaves and resumes from, and the models that share its base.

use std::fs;

use crate::support::{
    experiments::{DPO, PPO, REWARD, SHARED, lab, write},
    lab::{Lab, ROWS},
};

/// The part of an experiment that adapts `runs/base`.
const ADAPTED: &str = "seed = 7\n[backend]\nplugin = \"candle\"\nthreads = 1\n[model]\nfrom = \"runs/base\"\n";
const LORA: &str = "[model.lora]\nrank = 4\nalpha = 8\n";

/// A folder with a language model `runs/base`, and `tiny.toml` that trains an adapter of it.
fn adapted(objective: &str) -> Lab {
    let lab = lab(objective);
    write(&lab, "base", DPO);
    lab.ask(&["run", "base.toml", "--set", "train.steps=2"]).succeeds();
    lab.write("tiny.toml", format!("{ADAPTED}{LORA}{ROWS}{SHARED}{objective}"));
    lab
}

const BASE: &str = "runs/base/checkpoints/step-00000002/model.safetensors";

/// Catches a reference that is guessed, weights of the base that a run changes or saves again, and an adapter that a command opens
/// without its base.
#[test]
fn gotcha_17_an_adapter_has_no_reference_that_is_guessed() {
    let lab = adapted(DPO);
    let weights = fs::read(lab.at(BASE)).expect("weights");
    let missing = ["reference", "adapter = \"off\"", "adapter = \"start\""];
    lab.run(&[]).refuses(2, &missing);
    lab.run(&["reference.from=self"]).refuses(2, &missing);
    lab.run(&["reference.adapter=off", "reference.average=0.5"]).refuses(2, &["reference.adapter", "start"]);
    lab.run(&["reference.adapter=off", "reference.from=runs/base"]).refuses(2, &["reference.adapter", "unused"]);
    assert!(!lab.tiny_run().0.exists());
    // A fresh adapter is its base, so both references give the same bits.
    let mut logs = Vec::new();
    for adapter in ["off", "start"] {
        _ = fs::remove_dir_all(lab.at("runs/tiny"));
        lab.run(&[&format!("reference.adapter={adapter}")]).succeeds();
        logs.push(lab.tiny_run().bytes("metrics.jsonl"));
    }
    assert!(logs[0] == logs[1]);
    let run = lab.tiny_run();
    assert!((run.train("loss")[0] - std::f64::consts::LN_2).abs() < 1e-6);
    assert!(run.train("loss")[19] < 0.6, "{:?}", run.train("loss"));
    assert!(weights == fs::read(lab.at(BASE)).expect("weights"));
    let folder = lab.at("runs/tiny/checkpoints/step-00000020");
    assert!(folder.join("adapter_model.safetensors").exists() && !folder.join("model.safetensors").exists());
    lab.ask(&["generate", "runs/tiny", "--prompt", "3? ", "--max-tokens", "2"]).succeeds();
    // The tuned adapter as reference differs from the base as reference.
    let mut first = Vec::new();
    for adapter in ["off", "start"] {
        let text = format!("{ADAPTED}adapter = \"runs/tiny\"\n{ROWS}{SHARED}{DPO}");
        lab.write("more.toml", format!("{text}[reference]\nadapter = \"{adapter}\"\n"));
        let name = format!("name={adapter}");
        lab.ask(&["run", "more.toml", "--set", "train.steps=2", "--set", &name]).succeeds();
        first.push(crate::support::lab::Run(lab.at(&format!("runs/{adapter}"))).train("loss")[0]);
    }
    assert!((first[1] - std::f64::consts::LN_2).abs() < 1e-6, "{first:?}");
    assert!(first[0] < first[1] - 0.01, "{first:?}");
    lab.run(&["model.from=runs/tiny", "reference.adapter=off"]).refuses(2, &["model.from", "is an adapter"]);
}

/// Catches moments of an adapter that are lost, factors that are drawn again, and a base that is searched in the checkpoint.
#[test]
fn gotcha_42_a_resumed_adapter_leaves_the_same_bits() {
    for (objective, sets) in
        [(DPO, &["reference.adapter=start", "reference.average=0.9"][..]), (PPO, &["reference.adapter=off"])]
    {
        let lab = adapted(objective);
        let sets = [sets, &["train.steps=8", "checkpoint.every=4", "eval.every=0"]].concat();
        lab.run(&sets).succeeds();
        let run = lab.tiny_run();
        let files = ["adapter_model.safetensors", "optimizer.safetensors", "adapter_config.json"];
        let whole: Vec<Vec<u8>> = files.iter().map(|file| run.saved(8, file)).collect();
        fs::remove_dir_all(lab.at("runs/tiny/checkpoints/step-00000008")).expect("removed");
        fs::write(lab.at("runs/tiny/checkpoints/LATEST"), "step-00000004\n").expect("written");
        lab.resume(&sets).succeeds();
        for (file, whole) in files.iter().zip(whole) {
            assert!(run.saved(8, file) == whole, "{file} differs");
        }
    }
}

/// Catches a stage that starts from another adapter than the one before it leaves, and a check that fails while that does not exist.
#[test]
fn a_stage_continues_the_adapter_of_an_earlier_one() {
    let lab = adapted(DPO);
    let stage = |name: &str, model: &str, adapter: &str| {
        format!("[[stage]]\nname = \"{name}\"\n{model}\nreference.adapter = \"{adapter}\"\ntrain.steps = 4\n")
    };
    let (first, second) =
        (stage("a", "model.lora.rank = 2", "off"), stage("b", "model.adapter = \"stage:a\"", "start"));
    lab.write("pipe.toml", format!("{ADAPTED}{ROWS}{SHARED}{}{first}{second}", DPO.replace("steps = 20\n", "")));
    lab.ask(&["check", "pipe.toml"]).succeeds();
    lab.ask(&["run", "pipe.toml"]).succeeds();
    let losses = crate::support::lab::Run(lab.at("runs/pipe/b")).train("loss");
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-6, "{losses:?}");
}

/// Catches a base that is held once for each role, a critic or reward model that has the policy's adapter, and a checkpoint without the
/// critic's adapter.
#[test]
fn policy_critic_and_reward_model_share_one_base() {
    let lab = adapted(REWARD);
    lab.run(&[]).succeeds();
    fs::rename(lab.at("runs/tiny"), lab.at("runs/rm")).expect("renamed");
    let reward = PPO.replace("plugin = \"length\"\nunit = \"characters\"\ntarget = 4", "model = \"runs/rm\"");
    for from in ["policy", "runs/rm"] {
        let rest = format!("{ROWS}{SHARED}{reward}[critic]\nfrom = \"{from}\"\n");
        let held = |model: &str, more: &str| {
            lab.write("sizes.toml", format!("{ADAPTED}{model}{rest}{more}"));
            lab.check("sizes.toml", &[])["memory_held_bytes"].as_u64().expect("bytes")
        };
        let (adapters, whole) = (held(LORA, "[reference]\nadapter = \"off\"\n"), held("", ""));
        let base = fs::metadata(lab.at(BASE)).expect("a file").len();
        // Without adapters at least the policy with gradient and moments, and the reference.
        assert!(
            adapters < 2 * base && whole > 5 * base,
            "{from}: {adapters}, without adapters {whole}, the base has {base}"
        );
        lab.write("tiny.toml", format!("{ADAPTED}{LORA}{rest}[reference]\nadapter = \"off\"\n"));
        _ = fs::remove_dir_all(lab.at("runs/tiny"));
        lab.run(&["train.steps=4"]).succeeds();
        let critic = lab.at("runs/tiny/checkpoints/step-00000004/critic");
        assert!(critic.join("adapter_model.safetensors").exists() && !critic.join("model.safetensors").exists());
    }
}

/// Catches settings that are dropped in silence.
#[test]
fn what_adapters_lack_is_refused_by_name() {
    let lab = adapted(DPO);
    for (set, parts) in [
        ("model.lora.dropout=0.1", &["model.lora.dropout", "without dropout"][..]),
        ("model.lora.dora=true", &["model.lora.dora", "DoRA"]),
        ("model.lora.quantize=nf4", &["model.lora.quantize", "no backend"]),
        ("model.lora.targets=[\"q_prj\"]", &["model.lora.targets", "no linear map `q_prj`", "q_proj"]),
        ("model.adapter=runs/base", &["model.lora", "unused"]),
    ] {
        lab.run(&[set, "reference.adapter=off"]).refuses(2, parts);
    }
}
