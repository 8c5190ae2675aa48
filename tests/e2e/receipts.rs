//! What a run is made of when it goes on: the same data and weights, or none; other programs, and it says so.

use std::fs;

use serde_json::json;

use crate::{
    kills::{kill_at, with_steps_enough},
    lab::{Lab, ROWS, Run, SMALL, some_text},
    rig::{library, test_plugins},
};

const OFTEN: &str = "checkpoint.every=1";

/// Catches a run that goes on over other text of the same length, and a receipt that says it learned from that alone.
#[test]
fn a_run_does_not_go_on_over_other_data() {
    with_steps_enough(100, |steps| {
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
        lab.resume(&sets).refuses(2, &["data[text.txt].sha256: \"", "\" is now \"", "as it was", "--name"]);
        assert_eq!(run.receipt(), receipt);
        lab.write("text.txt", &text);
        lab.resume(&sets).succeeds();
        assert_eq!((&run.receipt()["data"], &run.receipt()["replaced"]), (&receipt["data"], &json!(null)));
        true
    });
}

/// Catches a run that two plugins made and whose receipt names one.
#[test]
fn a_plugin_that_was_replaced_on_the_way_stands_in_the_receipt() {
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
    let told = ["note: replaced after step 3", "plugins[panics-in-loss].sha256: \"", "step 4"];
    fails(&["--resume", "--update-lock"]).refuses(1, &told);
    let receipt = run.receipt();
    assert_eq!(receipt["replaced"].as_array().map(Vec::len), Some(1), "{receipt:#}");
    assert_eq!(receipt["replaced"][0]["after_step"], 3, "{receipt:#}");
    fails(&["--resume"]).refuses(1, &["step 4"]);
    assert_eq!(run.receipt()["replaced"], receipt["replaced"]);
}

/// Catches a frozen reference that becomes another model on the way, and a resume that asks for weights which it does not read.
#[test]
fn weights_that_a_run_began_with_may_change_once_nothing_reads_them() {
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
        with_steps_enough(100, |steps| {
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
                answer.refuses(2, &["model.sha256: \"", "as it was", "--name"]);
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
fn a_run_that_began_under_other_rules_is_not_continued() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=4"]).succeeds();
    let path = lab.tiny_run().0.join("receipt.json");
    let mut receipt = lab.tiny_run().receipt();
    assert!(receipt["rules"].as_u64() >= Some(1), "{receipt:#}");
    receipt.as_object_mut().expect("an object").remove("rules");
    fs::write(&path, receipt.to_string()).expect("written");
    lab.resume(&["train.steps=8"]).refuses(2, &["other rules", "rules 0", "--name"]);
}
