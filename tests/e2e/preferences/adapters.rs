//! Adapters: what a run with `model.lora` needs, leaves and resumes from, and the models that share its base.

use std::fs;

use serde_json::Value;

use crate::support::{
    experiments::{DPO, PPO, REWARD, SHARED, lab, rows, write},
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

const BASE_FOLDER: &str = "runs/base/checkpoints/step-00000002";
const BASE: &str = "runs/base/checkpoints/step-00000002/model.safetensors";

/// Copies the files of a model's folder into a new folder.
fn copied(lab: &Lab, from: &str, to: &str) {
    fs::create_dir(lab.at(to)).expect("made");
    for entry in fs::read_dir(lab.at(from)).expect("listed").flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), lab.at(to).join(entry.file_name())).expect("copied");
    }
}

/// Changes the last number of a file of weights; returns the bytes that it had.
fn changed(lab: &Lab, weights: &str) -> Vec<u8> {
    let own = fs::read(lab.at(weights)).expect("weights");
    let mut changed = own.clone();
    // The last byte of a number, with the sign and the exponent.
    *changed.last_mut().expect("bytes") ^= 0x80;
    fs::write(lab.at(weights), &changed).expect("written");
    own
}

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

/// Moves a folder's content into a new folder, so that no absolute path in it is valid.
fn moved(lab: &Lab) -> Lab {
    let other = Lab::new();
    for entry in fs::read_dir(lab.path()).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        fs::rename(lab.path().join(&name), other.path().join(&name)).expect("moved");
    }
    other
}

/// Copies the adapter of a run's checkpoint to `folder` as PEFT writes one, with these keys.
fn as_peft(lab: &Lab, checkpoint: &str, folder: &str, keys: &[(&str, Value)]) {
    fs::create_dir_all(lab.at(folder)).expect("created");
    let at = |name: &str| lab.at(&format!("{checkpoint}/{name}"));
    fs::copy(at("adapter_model.safetensors"), lab.at(&format!("{folder}/adapter_model.safetensors"))).expect("copied");
    let text = fs::read(at("adapter_config.json")).expect("read");
    let mut config: Value = serde_json::from_slice(&text).expect("JSON");
    keys.iter().for_each(|(key, value)| config[*key] = value.clone());
    lab.write(&format!("{folder}/adapter_config.json"), config.to_string());
}

/// Catches a reward adapter whose head starts again at zero, that is trained as a language model or generates, and one whose scores are
/// forgotten; also where it is the adapter of an earlier stage.
#[test]
fn an_adapter_is_what_its_own_config_says() {
    let lab = adapted(REWARD);
    lab.run(&[]).succeeds();
    fs::rename(lab.at("runs/tiny"), lab.at("runs/rm")).expect("renamed");
    let model = format!("{ADAPTED}adapter = \"runs/rm\"\n");
    lab.write("tiny.toml", format!("{model}{ROWS}{SHARED}{REWARD}"));
    lab.run(&["train.steps=2"]).succeeds();
    let loss = lab.tiny_run().train("loss")[0];
    assert!(loss < std::f64::consts::LN_2 - 0.1, "{loss}: the head starts as it was trained");
    lab.write("dpo.toml", format!("{model}{ROWS}{SHARED}{DPO}[reference]\nadapter = \"off\"\n"));
    let refused = ["model.adapter", "reward model or critic", "no language-model head"];
    lab.ask(&["run", "dpo.toml"]).refuses(2, &refused);
    let stage = |name: &str, rest: &str, objective: &str| {
        format!("[[stage]]\nname = \"{name}\"\n{rest}\ntrain.steps = 2\n{objective}\n")
    };
    let common = SHARED.to_owned() + "[train]\nbatch = { pairs = 8 }\noptimizer = { lr = 3e-3 }\n";
    let first = stage("a", "model.lora.rank = 2", "objective.plugin = \"reward\"");
    for (objective, passes) in [("reward", true), ("dpo", false)] {
        let reference = if passes { "" } else { "reference.adapter = \"off\"" };
        let second = stage(
            "b",
            &format!("model.adapter = \"stage:a\"\n{reference}"),
            &format!("objective.plugin = \"{objective}\""),
        );
        lab.write("pipe.toml", format!("{ADAPTED}{ROWS}{common}{first}{second}"));
        let answer = lab.ask(&["check", "pipe.toml"]);
        match passes {
            true => _ = answer.succeeds(),
            false => answer.refuses(2, &refused),
        }
    }
}

/// Catches an adapter that was trained with another mask than the objective's, whose mask is taken from its base.
#[test]
fn an_adapter_keeps_its_attention_mask() {
    let lab = adapted(
        "[objective]\nplugin = \"sft\"\nattention = \"prefix\"\n[train]\nsteps = 2\nbatch = { sequences = 4 }\n\
         optimizer = { lr = 3e-3 }\n",
    );
    lab.write("rows.jsonl", rows(60).replace("\"chosen\"", "\"completion\""));
    lab.run(&[]).succeeds();
    let plain =
        "[objective]\nplugin = \"sft\"\n[train]\nsteps = 2\nbatch = { sequences = 4 }\noptimizer = { lr = 3e-3 }\n";
    lab.write("more.toml", format!("{ADAPTED}adapter = \"runs/tiny\"\n{ROWS}{SHARED}{plain}"));
    let refused = ["model.adapter", "attention mask prefix"];
    lab.ask(&["run", "more.toml"]).refuses(2, &refused);
    lab.ask(&["run", "more.toml", "--set", "objective.attention=prefix"]).succeeds();
}

/// Catches a merged model that can be named only by the number of its step, and one that the check of a pipeline takes for an adapter.
#[test]
fn the_merged_model_of_a_run_or_stage_is_named_by_its_pointer() {
    let lab = adapted(DPO);
    lab.run(&["reference.adapter=off", "train.steps=2"]).succeeds();
    let merged = "runs/tiny/checkpoints/LATEST/merged";
    lab.ask(&["generate", merged, "--prompt", "3? "]).refuses(2, &["has no folder merged", "checkpoint.merged = true"]);
    fs::remove_dir_all(lab.at("runs/tiny")).expect("removed");
    lab.run(&["reference.adapter=off", "train.steps=2", "checkpoint.merged=true"]).succeeds();
    lab.ask(&["generate", merged, "--prompt", "3? ", "--max-tokens", "2"]).succeeds();
    let stages = "[[stage]]\nname = \"a\"\nmodel.lora.rank = 2\nreference.adapter = \"off\"\ntrain.steps = 2\n\
                  checkpoint.merged = true\n[[stage]]\nname = \"b\"\nmodel.from = \"stage:a/merged\"\ntrain.steps = 2\n";
    let text = format!("{ADAPTED}{ROWS}{SHARED}{}", DPO.replace("steps = 20\n", ""));
    lab.write("pipe.toml", format!("{text}{stages}"));
    lab.ask(&["check", "pipe.toml"]).succeeds();
    lab.ask(&["run", "pipe.toml"]).succeeds();
    lab.write("pipe.toml", format!("{text}{}", stages.replace("checkpoint.merged = true\n", "")));
    lab.ask(&["check", "pipe.toml"]).refuses(2, &["stage `a` merges no adapter", "checkpoint.merged = true"]);
}

/// Catches a run that cannot be resumed, or a critic's adapter that cannot be opened, once their folders were moved.
#[test]
fn moved_runs_of_adapters_are_resumed() {
    for (objective, sets) in
        [(PPO, &["reference.adapter=off"][..]), (DPO, &["reference.adapter=start", "reference.average=0.9"])]
    {
        let lab = adapted(objective);
        lab.run(&[sets, &["train.steps=4", "checkpoint.every=2"]].concat()).succeeds();
        let lab = moved(&lab);
        lab.resume(&[sets, &["train.steps=6", "checkpoint.every=2"]].concat()).succeeds();
        assert_eq!(lab.tiny_run().train("loss").len(), 6);
    }
}

/// Catches a run that goes on with other weights under its adapter, or under its critic's or reference's, than those it began with.
#[test]
fn a_resumed_run_refuses_other_weights_under_a_role() {
    let lab = adapted(REWARD);
    copied(&lab, BASE_FOLDER, "other");
    lab.run(&["model.from=other"]).succeeds();
    fs::rename(lab.at("runs/tiny"), lab.at("runs/rm")).expect("renamed");
    let reward = PPO.replace("plugin = \"length\"\nunit = \"characters\"\ntarget = 4", "model = \"runs/rm\"");
    let critic = "[critic]\nfrom = \"runs/rm\"\n[reference]\nadapter = \"off\"\n";
    lab.write("tiny.toml", format!("{ADAPTED}{LORA}{ROWS}{SHARED}{reward}{critic}"));
    lab.run(&["train.steps=4", "checkpoint.every=2"]).succeeds();
    // A checkpoint of a run has a list of its files; other folders do not.
    let of_run = ["runs/base", "model.safetensors is damaged: its sha256 differs"];
    let of_folder = ["/critic", "are not those that the adapter"];
    for (weights, refused) in [(BASE, of_run), ("other/model.safetensors", of_folder)] {
        let own = changed(&lab, weights);
        lab.resume(&["train.steps=6", "checkpoint.every=2"]).refuses(2, &refused);
        fs::write(lab.at(weights), &own).expect("written");
    }
    lab.resume(&["train.steps=6", "checkpoint.every=2"]).succeeds();
}

/// Catches a base that is not there and is replaced without a note, an error that does not say what is missing, and a pattern of
/// targets that only a run accepts.
#[test]
fn an_adapter_without_its_base_is_put_over_model_from() {
    let lab = adapted(DPO);
    lab.run(&["reference.adapter=off", "train.steps=4"]).succeeds();
    let keys = [
        ("base_model_name_or_path", "/nowhere/base".into()),
        ("target_modules", ".*(q|v)_proj|.*mlp.*|.*[ko]_proj".into()),
    ];
    as_peft(&lab, "runs/tiny/checkpoints/step-00000004", "peft", &keys);
    lab.write(
        "more.toml",
        format!("{ADAPTED}adapter = \"peft\"\n{ROWS}{SHARED}{DPO}[reference]\nadapter = \"start\"\n"),
    );
    let answer = lab.ask(&["run", "more.toml", "--set", "train.steps=2"]);
    answer.succeeds();
    for part in ["model.adapter: peft was trained on /nowhere/base, and there is no such folder", "runs/base"] {
        assert!(answer.err.contains(part), "{answer:#?}");
    }
    lab.ask(&["generate", "peft", "--prompt", "3? "])
        .refuses(2, &["base_model_name_or_path", "/nowhere/base", "set `base_model_name_or_path` to"]);
    let stage = "[[stage]]\nname = \"a\"\ntrain.steps = 2\n[[stage]]\nname = \"b\"\nmodel.adapter = \"stage:a\"\ntrain.steps = 2\n";
    let text = fs::read_to_string(lab.at("more.toml"))
        .expect("read")
        .replace("steps = 20\n", "")
        .replace("adapter = \"peft\"\n", "");
    lab.write("pipe.toml", format!("{text}{}", stage.replacen("train", "model.adapter = \"peft\"\ntrain", 1)));
    lab.ask(&["check", "pipe.toml"]).succeeds();
    lab.ask(&["run", "pipe.toml"]).succeeds();
}

/// Catches an adapter over weights that replaced those that it was trained on in the same folder, and one whose copy forgets them.
#[test]
fn an_adapter_is_refused_over_weights_that_replaced_its_base() {
    let lab = adapted(DPO);
    copied(&lab, BASE_FOLDER, "other");
    fs::remove_file(lab.at("other/manifest.json")).expect("removed");
    lab.run(&["model.from=other", "reference.adapter=off", "train.steps=2"]).succeeds();
    copied(&lab, "runs/tiny/checkpoints/step-00000002", "copy");
    fs::remove_file(lab.at("copy/manifest.json")).expect("removed");
    let more = format!("{}adapter = \"runs/tiny\"\n", ADAPTED.replace("runs/base", "other"));
    lab.write("more.toml", format!("{more}{ROWS}{SHARED}{DPO}[reference]\nadapter = \"start\"\n"));
    let own = changed(&lab, "other/model.safetensors");
    let commands: [&[&str]; 4] = [
        &["generate", "runs/tiny", "--prompt", "3? ", "--max-tokens", "2"],
        &["generate", "copy", "--prompt", "3? ", "--max-tokens", "2"],
        &["convert", "runs/tiny", "merged", "--merge-lora"],
        &["run", "more.toml", "--set", "train.steps=2"],
    ];
    for command in commands {
        lab.ask(command).refuses(2, &["other", "are not those that the adapter", "was trained on", "restore them"]);
    }
    fs::write(lab.at("other/model.safetensors"), own).expect("written");
    commands.iter().for_each(|command| _ = lab.ask(command).succeeds());
}

/// Catches a moved base whose remedy makes the checkpoint unusable, and a run that cannot be resumed with the same bytes at another path.
#[test]
fn a_moved_base_is_named_by_its_new_path() {
    let lab = adapted(DPO);
    copied(&lab, BASE_FOLDER, "other");
    fs::remove_file(lab.at("other/manifest.json")).expect("removed");
    lab.run(&["model.from=other", "reference.adapter=off", "train.steps=2"]).succeeds();
    fs::rename(lab.at("other"), lab.at("moved")).expect("renamed");
    let generate = |model: &str| lab.ask(&["generate", model, "--prompt", "3? ", "--max-tokens", "2"]);
    generate("runs/tiny").refuses(2, &["base_model_name_or_path", "move or link", "without manifest.json"]);
    copied(&lab, "runs/tiny/checkpoints/step-00000002", "copy");
    fs::remove_file(lab.at("copy/manifest.json")).expect("removed");
    let config = fs::read_to_string(lab.at("copy/adapter_config.json")).expect("read");
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    config["base_model_name_or_path"] = "../moved".into();
    lab.write("copy/adapter_config.json", config.to_string());
    generate("copy").succeeds();
    let answer = lab.resume(&["model.from=moved", "reference.adapter=off", "train.steps=4"]);
    answer.succeeds();
    assert!(answer.err.contains("note: changed on resuming: model.from: \"other\" is now \"moved\""), "{answer:#?}");
    generate("runs/tiny").succeeds();
    _ = changed(&lab, "moved/model.safetensors");
    copied(&lab, "moved", "again");
    let refused = ["the experiment differs", "model.from = \"again\""];
    lab.resume(&["model.from=again", "reference.adapter=off", "train.steps=6"]).refuses(2, &refused);
}

/// Catches a check that passes for a stage whose adapter belongs to other weights than those of its model.from.
#[test]
fn a_stage_puts_an_adapter_over_its_own_base() {
    let lab = adapted(DPO);
    let stages = "[[stage]]\nname = \"a\"\nmodel.lora.rank = 2\nreference.adapter = \"off\"\ntrain.steps = 2\n\
                  checkpoint.merged = true\n[[stage]]\nname = \"b\"\nmodel.from = \"stage:a/merged\"\n\
                  model.adapter = \"stage:a\"\nreference.adapter = \"off\"\ntrain.steps = 2\n";
    lab.write("pipe.toml", format!("{ADAPTED}{ROWS}{SHARED}{}{stages}", DPO.replace("steps = 20\n", "")));
    for command in ["check", "run"] {
        lab.ask(&[command, "pipe.toml"]).refuses(2, &["model.adapter", "is trained on runs/base", "name its own base"]);
    }
    assert!(!lab.at("runs/pipe/a").exists());
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
