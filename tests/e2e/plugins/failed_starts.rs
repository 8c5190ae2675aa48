//! Runs that fail before their first step or while their plugin is being developed: nothing is left that would affect a retry.

use std::fs;

use serde_json::Value;

use super::odd::odd;
use crate::support::{
    lab::{Lab, Run, TINY},
    rig::{library, test_plugins},
};

/// Catches a development mode that pins what changes with every build, does not report what was used, or removes a
/// checkpoint; and an ordinary mode that ignores its lock.
#[test]
fn dev_notes_changed_plugins_and_replaces_a_run_without_a_checkpoint() {
    let lab = Lab::tiny();
    let original = library(&test_plugins(), "test-plugin-faulty");
    let copy = lab.at("mine").join(original.file_name().expect("a file"));
    fs::create_dir(lab.at("mine")).expect("a folder");
    let bytes = fs::read(original).expect("a library");
    let build = |number: u8| fs::write(&copy, [&bytes[..], &[number]].concat()).expect("written");
    let run = |more: &[&str]| {
        let args =
            ["run", "tiny.toml", "--plugins", "mine", "--set", "objective.plugin=odd", "--set", "checkpoint.every=0"];
        lab.ask(&[&args[..], more].concat())
    };
    // In development nothing is pinned, and what fails before a step is done is removed.
    build(0);
    let broken = ["--set", "objective.fault=no-terms"];
    run(&[&["--dev"][..], &broken].concat()).refuses(1, &["no term", "the run ended before its first step"]);
    assert!(!lab.at("runs/plugins.lock").exists() && !lab.tiny_run().0.exists());
    // A run that dies in a later step has no checkpoint and is replaced.
    let dies = ["--set", "objective.fault=exit-loss", "--set", "objective.at_step=3", "--set", "eval.every=0"];
    run(&[&["--dev"][..], &dies].concat()).refuses(1, &["call `loss`, step 3"]);
    lab.tiny_run().has_steps(2);
    run(&[]).refuses(2, &["exists already", "--resume"]);
    build(1);
    run(&["--dev"]).succeeds();
    lab.tiny_run().has_steps(8);
    assert_eq!(lab.tiny_run().receipt()["unpinned"], Value::Null);
    // It has a checkpoint now.
    run(&["--dev"]).refuses(2, &["exists already", "--dev never replaces a folder with a checkpoint"]);
    // An ordinary run pins; another build is then refused, except in development, which says so.
    run(&["--name", "pinned"]).succeeds();
    let lock = fs::read(lab.at("runs/plugins.lock")).expect("a lock");
    build(2);
    run(&["--name", "next"]).refuses(2, &["plugins.lock", "--update-lock", "--dev"]);
    let answer = run(&["--name", "next", "--dev"]);
    answer.succeeds();
    assert!(answer.err.contains("note: --dev: not the pinned plugin: objective odd: pinned sha256"), "{answer:#?}");
    let unpinned = Run(lab.at("runs/next")).receipt()["unpinned"].clone();
    assert!(unpinned[0].as_str().is_some_and(|line| line.starts_with("objective odd: pinned sha256 ")), "{unpinned}");
    assert!(lock == fs::read(lab.at("runs/plugins.lock")).expect("a lock"));
    run(&["--name", "both", "--dev", "--update-lock"]).refuses(2, &["--update-lock", "--dev"]);
    let check = ["check", "tiny.toml", "--plugins", "mine", "--set", "objective.plugin=odd"];
    lab.ask(&check).refuses(2, &["plugins.lock"]);
    assert!(lab.ask(&[&check[..], &["--dev"]].concat()).succeeds().contains("not the pinned plugin"));
}

/// Catches a failed start that pins a plugin which is about to be fixed, or that blocks its own retry; and the same for a stage of
/// a pipeline.
#[test]
fn a_failed_start_leaves_neither_folder_nor_pin() {
    let (lab, answer) = odd("no-terms", &[]);
    answer.refuses(1, &["removed ", "runs/tiny: the run ended before its first step"]);
    assert!(!lab.tiny_run().0.exists() && !lab.at("runs/plugins.lock").exists());
    lab.run(&["objective.plugin=odd", "train.steps=2"]).succeeds();
    let stage = |fault: &str| {
        let own = TINY.replace("[objective]\nplugin = \"ce\"\n", "");
        format!("{own}\n[[stage]]\nname = \"one\"\nobjective = {{ plugin = \"odd\", fault = \"{fault}\" }}\n")
    };
    lab.write("stages.toml", stage("no-terms"));
    lab.ask(&["run", "stages.toml"]).refuses(1, &["stage \"one\"", "no term"]);
    lab.write("stages.toml", stage("none"));
    lab.ask(&["run", "stages.toml", "--set", "train.steps=2"]).succeeds();
}

/// Catches a crash before the first step that leaves its folder behind, whose retry then says "exists already".
#[test]
fn a_crashed_start_leaves_no_run() {
    let (lab, answer) = odd("exit-loss", &[]);
    answer.refuses(1, &["call `loss`, before step 1", "removed ", "the run ended before its first step"]);
    assert!(!lab.tiny_run().0.exists(), "{answer:#?}");
    let (aborted, answer) = odd("abort-loss", &[]);
    answer.refuses(1, &["SIGABRT", "the run ended before its first step"]);
    assert!(!aborted.tiny_run().0.exists(), "{answer:#?}");
    let panicked = Lab::tiny();
    panicked.run(&["objective.plugin=panics-in-loss"]).refuses(1, &["panics-in-loss"]);
    assert!(!panicked.tiny_run().0.exists());
    lab.run(&["train.steps=2"]).succeeds();
    lab.tiny_run().has_steps(2);
}
