//! What a continued run depends on: the same data and weights, or it is refused; other programs are reported.

use std::fs;

use serde_json::json;

use crate::support::{
    experiments,
    kills::{kill_at, with_enough_steps},
    lab::{Lab, ROWS, Run, SMALL, some_text},
    rig::{Answer, library, test_plugins},
};

const OFTEN: &str = "checkpoint.every=1";

/// Catches a run that continues with other text of the same length, and a receipt that names only that text.
#[test]
fn a_run_does_not_resume_with_different_data() {
    with_enough_steps(100, |steps| {
        let lab = Lab::tiny();
        let text = some_text(300);
        lab.write("text.txt", &text);
        let length = format!("train.steps={steps}");
        let sets = ["data={ source = \"text\", path = \"text.txt\" }", &length, OFTEN];
        let run = lab.tiny_run();
        if !kill_at(&lab, &sets, &run, [3]) {
            return false;
        }
        let receipt = run.receipt();
        lab.write("text.txt", text.replace("moon", "noon"));
        lab.resume(&sets).refuses(2, &["data[text.txt].sha256: \"", "\" is now \"", "other data or weights", "--name"]);
        assert_eq!(run.receipt(), receipt);
        lab.write("text.txt", &text);
        lab.resume(&sets).succeeds();
        assert_eq!((&run.receipt()["data"], &run.receipt()["replaced"]), (&receipt["data"], &json!(null)));
        true
    });
}

/// Catches a run made by two plugins whose receipt names one.
#[test]
fn a_plugin_that_was_replaced_during_a_run_is_recorded_in_the_receipt() {
    let lab = Lab::tiny();
    let original = library(&test_plugins(), "test-plugin-faulty");
    let copy = lab.at("mine").join(original.file_name().expect("a file"));
    fs::create_dir(lab.at("mine")).expect("a folder");
    let bytes = fs::read(original).expect("a library");
    fs::write(&copy, &bytes).expect("written");
    let fails = |more: &[&str]| {
        let args = ["run", "tiny.toml", "--plugins", "mine", "--set", "objective.plugin=panics-in-loss"];
        lab.ask(&[&args[..], &["--set", "objective.at_step=4", "--set", OFTEN], more].concat())
    };
    fails(&[]).refuses(1, &["step 4"]);
    let run = lab.tiny_run();
    assert_eq!(run.receipt()["replaced"], json!(null));
    // Bytes after the end of a library change nothing but its hash.
    fs::write(&copy, [&bytes[..], b"x"].concat()).expect("written");
    fails(&["--resume"]).refuses(2, &["plugins.lock", "--update-lock"]);
    let expected = ["note: replaced after step 3", "plugins[panics-in-loss].sha256: \"", "step 4"];
    fails(&["--resume", "--update-lock"]).refuses(1, &expected);
    let receipt = run.receipt();
    assert_eq!(receipt["replaced"].as_array().map(Vec::len), Some(1), "{receipt:#}");
    assert_eq!(receipt["replaced"][0]["after_step"], 3, "{receipt:#}");
    fails(&["--resume"]).refuses(1, &["step 4"]);
    assert_eq!(run.receipt()["replaced"], receipt["replaced"]);
}

/// Catches a frozen reference that becomes another model during the run, and a resume that requires weights it does not read.
#[test]
fn initial_weights_may_change_once_nothing_reads_them() {
    let lab = Lab::new();
    let row = |i: u64| json!({"prompt": format!("{i}? "), "completion": "yes", "chosen": "yes", "rejected": "no"});
    lab.write("rows.jsonl", (0..60).map(|i| format!("{}\n", row(i))).collect::<String>());
    let train =
        |steps| format!("\n[train]\nsteps = {steps}\nbatch = {{ tokens = 200 }}\noptimizer = {{ lr = 1e-3 }}\n");
    let write = |name: &str, model: &str, objective: &str, steps: u64| {
        let (backend, _) = SMALL.split_once("[model]").expect("a model");
        let objective = format!("\n[objective]\nplugin = \"{objective}\"\n\n[checkpoint]\nevery = 1\n");
        lab.write(&format!("{name}.toml"), format!("{backend}{model}\n{ROWS}{}{objective}", train(steps)))
    };
    let fresh = "[model]\nlayers = 1\ndim = 32\nheads = 2\ncontext = 48\n";
    let base = |seed: &str| {
        write("base", fresh, "sft", 2);
        _ = fs::remove_dir_all(lab.at("runs/base"));
        lab.ask(&["run", "base.toml", "--set", seed]).succeeds();
    };
    for (objective, reads) in [("sft", false), ("dpo", true)] {
        with_enough_steps(100, |steps| {
            base("seed=1");
            write("tiny", "[model]\nfrom = \"runs/base\"\n", objective, steps);
            let run = Run(lab.at("runs/tiny"));
            _ = fs::remove_dir_all(&run.0);
            if !kill_at(&lab, &[], &run, [3]) {
                return false;
            }
            let receipt = run.receipt();
            base("seed=2");
            let answer = lab.resume(&[]);
            if reads {
                answer.refuses(2, &["model.sha256: \"", "other data or weights", "--name"]);
                base("seed=1");
                lab.resume(&[]).succeeds();
            }
            assert_eq!(run.receipt()["model"], receipt["model"]);
            run.has_steps(steps);
            true
        });
    }
}

/// Catches a run of an earlier program, whose rows were other tokens, that is continued as if nothing had changed.
#[test]
fn a_run_of_other_data_rules_is_not_resumed() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=4"]).succeeds();
    let path = lab.tiny_run().0.join("receipt.json");
    let mut receipt = lab.tiny_run().receipt();
    assert!(receipt["rules"].as_u64() >= Some(1), "{receipt:#}");
    receipt.as_object_mut().expect("an object").remove("rules");
    fs::write(&path, receipt.to_string()).expect("written");
    lab.resume(&["train.steps=8"]).refuses(2, &["other rules", "rules 0", "--name"]);
}

/// A folder with the model files that a run left, and all other files that are read from a model's folder.
fn model(lab: &Lab, run: &str, name: &str) {
    let (from, to) = (lab.at(run), lab.at(name));
    fs::create_dir_all(to.join("additional_chat_templates")).expect("a folder");
    for entry in fs::read_dir(from).expect("a checkpoint").flatten().filter(|entry| entry.path().is_file()) {
        let file = entry.file_name();
        if !["manifest.json", "optimizer.safetensors", "trainer.json"].contains(&&*file.to_string_lossy()) {
            fs::copy(entry.path(), to.join(file)).expect("copied");
        }
    }
    fs::write(to.join("special_tokens_map.json"), "{}").expect("written");
    fs::write(to.join("added_tokens.json"), "{}").expect("written");
    let template = "{% for m in messages %}{{ m.content }} {% endfor %}";
    fs::write(to.join("chat_template.jinja"), template).expect("written");
    fs::write(to.join("additional_chat_templates/other.jinja"), template).expect("written");
}

/// Fails unless a resume names each changed file of the model in `folder`, under `place` in the receipt.
#[track_caller]
fn each_file_counts(lab: &Lab, sets: &[&str], folder: &str, changes: &[(&str, &str, &str, &str)]) {
    for (place, file, old, new) in changes {
        let path = lab.at(folder).join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(text.contains(old), "{file}: {text}");
        fs::write(&path, text.replacen(old, new, 1)).expect("written");
        lab.resume(sets).refuses(2, &[&format!("{place}[{file}].sha256: \""), "other data or weights", "--name"]);
        fs::write(&path, text).expect("written");
    }
    let own = lab.at(folder).join("chat_template.jinja");
    let aside = lab.at("aside.jinja");
    fs::rename(&own, &aside).expect("moved");
    lab.resume(sets).refuses(2, &["[chat_template.jinja]: {", "is now null"]);
    fs::rename(&aside, &own).expect("moved back");
}

/// Changes of the files in a model's folder, each with its place in the receipt.
fn changes<'a>(model: &'a str, tokenizer: &'a str) -> Vec<(&'a str, &'a str, &'a str, &'a str)> {
    vec![
        (model, "config.json", "\"rms_norm_eps\": 0.00001", "\"rms_norm_eps\": 0.0001"),
        (model, "generation_config.json", "256", "255"),
        (tokenizer, "tokenizer_config.json", "{", "{\"added\": 1, "),
        (tokenizer, "special_tokens_map.json", "{", "{ "),
        (tokenizer, "added_tokens.json", "{", "{ "),
        (tokenizer, "chat_template.jinja", "content }} ", "content }}"),
        (tokenizer, "additional_chat_templates/other.jinja", "content }} ", "content }}"),
    ]
}

/// Catches a receipt without the small files of the model that a run began from: a template or a shape that changed while the run was
/// stopped would be used without a report.
#[test]
fn a_change_in_any_file_of_the_initial_model_is_detected() {
    let lab = Lab::new();
    let rows = (0..60).map(|i| json!({"prompt": format!("{i}? "), "completion": "yes"}).to_string() + "\n");
    lab.write("rows.jsonl", rows.collect::<String>());
    let train =
        "\n[objective]\nplugin = \"sft\"\n[train]\nsteps = 2\nbatch = { tokens = 200 }\noptimizer = { lr = 1e-3 }\n";
    lab.write("base.toml", format!("{SMALL}{ROWS}{train}"));
    lab.ask(&["run", "base.toml"]).succeeds();
    model(&lab, "runs/base/checkpoints/step-00000002", "model");
    let (backend, _) = SMALL.split_once("[model]").expect("a model");
    let from = "[model]\nfrom = \"model\"\n[tokenizer]\nkind = \"model\"\n";
    lab.write("tiny.toml", format!("{backend}{from}{ROWS}{train}"));
    lab.run(&[]).succeeds();
    each_file_counts(&lab, &["train.steps=3"], "model", &changes("model.files", "tokenizer_files"));
    // A run from before the files were recorded can be resumed.
    let path = lab.tiny_run().0.join("receipt.json");
    let mut receipt = lab.tiny_run().receipt();
    receipt.as_object_mut().expect("an object").remove("tokenizer_files").expect("noted");
    receipt["model"].as_object_mut().expect("an object").remove("files").expect("noted");
    receipt["plugins"][0].as_object_mut().expect("an object").remove("libraries").expect("noted");
    fs::write(&path, receipt.to_string()).expect("written");
    lab.resume(&["train.steps=3"]).succeeds();
    assert_eq!(lab.tiny_run().receipt()["model"]["files"][0]["path"], "config.json");
}

/// The same for a reference, a reward model, and a critic, which a resumed run reads from its own checkpoint.
#[test]
fn a_change_in_any_file_of_the_other_models_is_detected() {
    let lab = experiments::lab(
        &experiments::PPO.replace("plugin = \"length\"\nunit = \"characters\"\ntarget = 4\n", "model = \"judge\"\n"),
    );
    lab.write(
        "judge.toml",
        fs::read_to_string(experiments::lab(experiments::REWARD).at("tiny.toml")).expect("an experiment"),
    );
    lab.ask(&["run", "judge.toml", "--set", "train.steps=2"]).succeeds();
    let sft =
        "\n[objective]\nplugin = \"sft\"\n[train]\nsteps = 2\nbatch = { tokens = 200 }\noptimizer = { lr = 1e-3 }\n";
    lab.write("base.toml", format!("{SMALL}{ROWS}{sft}").replace("rows.jsonl", "said.jsonl"));
    let rows = (0..60).map(|i| json!({"prompt": format!("{i}? "), "completion": "yes"}).to_string() + "\n");
    lab.write("said.jsonl", rows.collect::<String>());
    lab.ask(&["run", "base.toml"]).succeeds();
    model(&lab, "runs/judge/checkpoints/step-00000002", "judge");
    for name in ["reference", "critic"] {
        model(&lab, "runs/base/checkpoints/step-00000002", name);
    }
    let sets = ["reference={ from = \"reference\" }", "critic={ from = \"critic\" }"];
    let with = |steps| [&sets[..], &[steps]].concat();
    lab.run(&with("train.steps=4")).succeeds();
    let longer = with("train.steps=8");
    for (folder, place) in [("judge", "roles.reward.0.files"), ("reference", "roles.reference.files")] {
        each_file_counts(&lab, &longer, folder, &changes(place, place));
    }
    let config = lab.at("critic/config.json");
    let text = fs::read_to_string(&config).expect("read").replace("0.00001", "0.0001");
    fs::write(&config, text).expect("written");
    lab.resume(&longer).succeeds();
}

/// Catches a lock that was removed, and one that another run may change, which let a run continue with another plugin without
/// a report.
#[test]
fn without_a_lock_the_receipt_identifies_the_plugins_of_a_run() {
    let lab = Lab::tiny();
    let original = library(&test_plugins(), "test-plugin-faulty");
    let copy = lab.at("mine").join(original.file_name().expect("a file"));
    fs::create_dir(lab.at("mine")).expect("a folder");
    let bytes = fs::read(original).expect("a library");
    fs::write(&copy, &bytes).expect("written");
    let run = |name: &str, more: &[&str]| {
        let args = ["run", "tiny.toml", "--plugins", "mine", "--set", "objective.plugin=panics-in-loss"];
        lab.ask(&[&args[..], &["--set", "objective.at_step=4", "--set", OFTEN, "--name", name], more].concat())
    };
    run("a", &[]).refuses(1, &["step 4"]);
    fs::write(&copy, [&bytes[..], b"x"].concat()).expect("written");
    fs::remove_file(lab.at("runs/plugins.lock")).expect("removed");
    let expected = ["the run began with other plugins", "plugins[panics-in-loss].sha256: \"", "--update-lock"];
    run("a", &["--resume"]).refuses(2, &expected);
    run("b", &["--update-lock"]).refuses(1, &["step 4"]);
    run("a", &["--resume"]).refuses(2, &expected);
    run("a", &["--resume", "--update-lock"]).refuses(1, &["note: replaced after step 3", "step 4"]);
}

/// Catches pins that are lost when several runs begin at once in a folder of runs that does not exist yet.
#[test]
fn runs_that_begin_at_once_pin_all_their_plugins() {
    let objectives =
        ["plugin=\"ce\"", "plugin=\"panics-in-loss\", at_step=99", "plugin=\"odd\"", "plugin=\"panics-at-step-5\""];
    for round in 0..4 {
        let lab = Lab::tiny();
        let start = |(index, objective): (usize, &&str)| {
            let (objective, name) = (format!("objective={{ {objective} }}"), format!("name=r{index}"));
            lab.start(&[&objective, &name, "train.steps=2", "sample.every=0", "eval.every=0"], false)
        };
        let all: Vec<_> = objectives.iter().enumerate().map(start).collect();
        all.into_iter().for_each(|running| _ = running.answer().succeeds());
        let lock = fs::read_to_string(lab.at("runs/plugins.lock")).expect("a lock");
        for id in ["ce", "panics-in-loss", "odd", "panics-at-step-5", "candle"] {
            assert!(lock.contains(&format!("id = \"{id}\"")), "round {round}: {id} is not in {lock}");
        }
        lab.run(&["train.steps=1", "name=after"]).succeeds();
    }
}

/// Catches a lock that was emptied or truncated and then accepts every plugin.
#[test]
fn an_emptied_lock_is_refused() {
    let lab = Lab::tiny();
    let run = |more: &[&str]| lab.ask(&[&["run", "tiny.toml", "--set", "train.steps=1"], more].concat());
    run(&[]).succeeds();
    let path = lab.at("runs/plugins.lock");
    let whole = fs::read(&path).expect("a lock");
    for cut in [0, whole.len() / 2, whole.len() - 2] {
        fs::write(&path, &whole[..cut]).expect("written");
        run(&["--name", "b"]).refuses(2, &["plugins.lock:", "damaged", "--update-lock"]);
        assert!(!lab.at("runs/b").exists());
    }
    run(&["--name", "b", "--update-lock"]).succeeds();
    run(&["--name", "c"]).succeeds();
}

/// Catches a run that needs a temporary folder.
#[test]
fn a_run_needs_no_temporary_folder() {
    let lab = Lab::tiny();
    let mut command = lab.command(&["run", "tiny.toml", "--set", "train.steps=1"]);
    Answer::of(command.env("TMPDIR", "/nonexistent")).succeeds();
}
