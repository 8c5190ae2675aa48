//! Objectives of kinds that the quickstart does not have, in whole runs. The crates of those that are not shipped are in `tests/plugins`.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::support::{
    lab::{Lab, ROWS, Run, SMALL, close, with_sets},
    rig::{Answer, clean, telos},
};

/// GRPO: no critic; a reference only with a KL term.
const GRPO: &str = r#"
[objective]
plugin = "grpo"

[[reward]]
plugin = "length"
unit = "characters"
target = 4

[rollout]
prompts = 8
samples = 4
epochs = 2
max_new_tokens = 8

[train]
steps = 8
batch = { prompts = 4 }
optimizer = { lr = 3e-3 }
"#;

/// Fine-tuning by a column.
const WEIGHTED: &str = r#"
[objective]
plugin = "weighted-sft"

[train]
steps = 6
batch = { sequences = 8 }
optimizer = { lr = 3e-3 }
"#;

/// A folder with `tiny.toml` of this objective and rows of `row(i)`.
pub(super) fn lab(objective: &str, row: impl Fn(u64) -> Value) -> Lab {
    let lab = Lab::new();
    let eval = if objective == GRPO { "" } else { "\n[eval]\nevery = 6\n" };
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{eval}{objective}"));
    lab.write("rows.jsonl", (0..60).map(|i| format!("{}\n", row(i))).collect::<String>());
    lab
}

/// Checks and runs `tiny.toml`: both succeed, every loss is finite, no gradient is 0, and the last step is saved.
pub(super) fn trains(lab: &Lab, sets: &[&str]) -> Run {
    let answer = lab.ask(&with_sets(&["check", "tiny.toml"], sets));
    assert!(answer.succeeds().contains("is in order"), "{answer:#?}");
    lab.run(sets).succeeds();
    let run = lab.tiny_run();
    let (loss, norm) = (run.train("loss"), run.train("grad_norm"));
    assert!(loss.iter().all(|loss| loss.is_finite()), "{loss:?}");
    assert!(norm.iter().all(|norm| norm.is_finite() && *norm > 0.0), "{norm:?}");
    assert_eq!(run.pointer("LATEST"), Some(loss.len() as u64));
    run
}

/// Catches a host that sends a cotangent for a value that no objective returned (without a critic no model can receive
/// it), a memory check without `reward`, `ended` or several answers to a prompt, and invented answers that the first step uses.
#[test]
fn gotcha_55_grpo_trains_without_a_critic() {
    let prompt = |i| json!({"prompt": format!("{i}? ")});
    let lab = lab(GRPO, prompt);
    let run = trains(&lab, &[]);
    // Two steps over two passes: the first minibatch of every rollout is one that the policy has just answered.
    let (ratio, low, high) = (run.train("ratio/mean"), run.train("clip/low"), run.train("clip/high"));
    for first in [0, 4] {
        close(ratio[first], 1.0, 1e-5, "the first ratio of a rollout");
        assert_eq!((low[first], high[first]), (0.0, 0.0), "{low:?} {high:?}");
    }
    assert!(run.train("rewards/std").iter().all(|spread| *spread > 0.0));
    let files: Vec<_> =
        fs::read_dir(run.0.join("checkpoints/step-00000008")).expect("a checkpoint").flatten().collect();
    assert!(files.iter().all(|file| file.file_name() != "critic"), "{files:?}");
    // With a reference, still without a critic: at first they are the same model.
    let held = Lab::new();
    fs::copy(lab.at("rows.jsonl"), held.at("rows.jsonl")).expect("copied");
    fs::copy(lab.at("tiny.toml"), held.at("tiny.toml")).expect("copied");
    let run = trains(&held, &["objective.kl_coef=0.1"]);
    let kl = run.train("kl/reference");
    assert!(kl[0].abs() < 1e-9 && kl[7] > 1e-9, "{kl:?}");
    // A critic that nothing reads is refused, with what reads one.
    let refused = held.run(&["name=no", "critic.from=shared"]);
    refused.refuses(2, &["critic", "unused: no objective reads a critic (the statistic `critic.value`)"]);
}

/// Catches a memory check without the rows' columns, and weights that are ignored: equal ones give plain fine-tuning, and rows of
/// weight 0 are not learned.
#[test]
fn a_required_column_reaches_the_loss() {
    let row = |weight: fn(u64) -> f64| {
        move |i: u64| {
            let completion = if i.is_multiple_of(3) { "yes" } else { "no, not at all" };
            json!({"prompt": format!("{i}? "), "completion": completion, "weight": weight(i)})
        }
    };
    let equal = lab(WEIGHTED, row(|_| 2.5));
    let run = trains(&equal, &[]);
    equal.run(&["name=plain", "objective.plugin=sft"]).succeeds();
    let plain = Run(equal.at("runs/plain"));
    for (step, (ours, theirs)) in run.train("loss").iter().zip(plain.train("loss")).enumerate() {
        close(*ours, theirs, if step == 0 { 1e-6 } else { 1e-4 }, &format!("step {}", step + 1));
    }
    assert!((run.train("loss")[0] - 257f64.ln()).abs() < 0.2);
    let halved = lab(WEIGHTED, row(|i| f64::from(u8::from(i.is_multiple_of(3)))));
    let uneven = trains(&halved, &[]);
    assert!((uneven.train("loss")[0] - run.train("loss")[0]).abs() > 1e-4, "the weights change nothing");
    // A row without the column: no row has it then, and the fault is the objective's call, not the memory's.
    let missing = lab(WEIGHTED, |i| json!({"prompt": format!("{i}? "), "completion": "yes"}));
    for command in ["run", "check"] {
        let answer = missing.ask(&[command, "tiny.toml"]);
        let fault = "error: weighted-sft: `weigh`: the batch has no array `column.weight`";
        answer.refuses(1, &[fault, "found by the trial before step 1"]);
        assert!(!answer.err.contains("micro-batch"), "{answer:#?}");
    }
}

/// Catches a memory check whose `prepare` changes the state that the first step begins with, or that uses up a draw: the first
/// rollout then has another coefficient or other answers than one whose memory check was smaller.
#[test]
fn trying_a_batch_does_not_change_the_run() {
    let ppo = crate::support::experiments::PPO
        .replace("whiten_advantages = true", "kl_control = \"adaptive\"\nkl_coef = 0.25\nkl_horizon = 8.0");
    let lab = lab(&ppo, |i| json!({"prompt": format!("{}? ", "1".repeat(1 + i as usize % 9))}));
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{ppo}"));
    let mut first: Option<Run> = None;
    for tokens in [4096, 48] {
        let (name, cut) = (format!("name=cut{tokens}"), format!("train.micro_batch_tokens={tokens}"));
        lab.run(&[&name, &cut, "train.steps=2"]).succeeds();
        let run = Run(lab.at(&format!("runs/cut{tokens}")));
        assert_eq!(run.train("kl_coef")[0], 0.25);
        if let Some(first) = &first {
            assert_eq!(run.lines("samples.jsonl")[0]["text"], first.lines("samples.jsonl")[0]["text"]);
            close(run.train("loss")[0], first.train("loss")[0], 1e-4, "the first loss");
        }
        first = Some(run);
    }
}

/// A crate of an author outside this project: it depends only on the contract, by its path.
const OUTSIDE: &str = r#"
use plugin_api::prelude::*;

/// Cross-entropy of running text.
pub struct Outside;

impl ObjectivePlugin for Outside {
    type Options = ();

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Cross-entropy, from outside".into(),
            formula: "-logp".into(),
            terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "In nats")],
            ..Default::default()
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(Self)
    }
}

impl Objective for Outside {
    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let nll = -batch.var(&tape, "logp")?.masked_sum(batch.mask()?);
        Loss::new().term(&tape, "nll", 1.0, nll)
    }
}

export_objective!("outside", Outside);
"#;

/// Catches a contract that only crates of this workspace can be built with. Rebuilds its dependencies, which takes minutes.
#[test]
#[ignore = "rebuilds the contract's dependencies, which takes minutes: cargo xtask test --full"]
fn an_objective_built_outside_the_workspace_trains() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let lab = Lab::tiny();
    let folder = lab.at("outside");
    fs::create_dir_all(folder.join("src")).expect("a folder");
    let manifest = format!(
        "[package]\nname = \"outside\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\n\
         [dependencies]\nplugin-api = {{ path = {:?} }}\n\n[workspace]\n",
        root.join("plugin-api")
    );
    fs::write(folder.join("Cargo.toml"), manifest).expect("written");
    fs::write(folder.join("src/lib.rs"), OUTSIDE).expect("written");
    // The versions that this workspace has, so that nothing is fetched.
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).expect("copied");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    clean(&mut build)
        .args(["build", "--release", "--offline"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", lab.at("built"));
    Answer::of(&mut build).succeeds();
    let plugins = lab.at("built/release");
    let run = |plugin: &str| {
        let (name, plugin) = (format!("name={plugin}"), format!("objective.plugin={plugin}"));
        let mut command = telos(lab.path());
        command.args(["run", "tiny.toml", "--set", &name, "--set", &plugin, "--plugins"]).arg(&plugins);
        Answer::of(&mut command).succeeds();
    };
    run("outside");
    run("ce");
    let [ours, theirs] = ["outside", "ce"].map(|name| Run(lab.at(&format!("runs/{name}"))).train("loss"));
    for (ours, theirs) in ours.iter().zip(theirs) {
        close(*ours, theirs, 1e-4, "the loss");
    }
}
