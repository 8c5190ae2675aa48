//! Pipelines whose stages are a reward model, preferences and rollouts.

use std::fs;

use crate::support::experiments::{PPO, lab};

/// A reward model and a policy that prefers; and a policy that learns from its own answers.
const STAGES: &str = r#"
seed = 7

[backend]
plugin = "candle"
threads = 1

[data]
source = "jsonl"
path = "rows.jsonl"
held_out = 0.2

[train]
steps = 2
optimizer = { lr = 1e-3 }

[[stage]]
name = "rm"
model = { layers = 1, dim = 32, heads = 2, context = 48 }
objective = { plugin = "reward" }
train.batch.pairs = 4

[[stage]]
name = "dpo"
model = { layers = 1, dim = 32, heads = 2, context = 48 }
objective = { plugin = "dpo" }
train.batch.pairs = 4

[[stage]]
name = "ppo"
model.from = "stage:dpo"
objective = { plugin = "ppo" }
reward = { plugin = "length", unit = "characters", target = 4 }
rollout = { prompts = 8, max_new_tokens = 8 }
train.batch.prompts = 4
"#;

/// Catches a stage's mistake that is found only after the stages before it have trained.
#[test]
fn mistakes_of_later_stages_are_reported_before_the_first_one_trains() {
    let lab = lab(PPO);
    lab.write("tiny.toml", STAGES);
    lab.run(&[]).succeeds();
    fs::remove_dir_all(lab.at("runs/tiny")).expect("removed");
    for (set, expected) in [
        ("stage.ppo.rollout.prompts=10", "not a multiple of train.batch.prompts"),
        ("stage.ppo.rollout.max_new_tokens=64", "leave no room for a prompt"),
        ("stage.ppo.objective=[{plugin=\"ppo\"},{plugin=\"ce\"}]", "the number of tokens of its own text per step"),
        ("stage.ppo.train.optimizer.groups=[{match=\"nope*\",lr_scale=0.1}]", "matches no parameter"),
        (
            "stage.ppo.sample={prompts=[\"a prompt that is much longer than the forty-eight tokens of the context\"]}",
            "has 7",
        ),
        ("stage.ppo.model.from=\"stage:rm\"", "no language-model head"),
        ("stage.ppo.reference.from=\"stage:rm\"", "no language-model head"),
        ("stage.dpo.reward={plugin=\"length\"}", "answers no prompt"),
    ] {
        lab.run(&[set]).refuses(2, &[expected]);
        lab.ask(&["check", "tiny.toml", "--set", set]).refuses(2, &[expected]);
        assert!(!lab.at("runs/tiny").exists(), "{set}: something was written");
    }
    // A group of the critic's own head is one of this experiment's parameters.
    lab.run(&["stage.ppo.train.optimizer.groups=[{match=\"score*\",lr_scale=0.1}]"]).succeeds();
}

/// Catches a note that considers only the initial model of a stage, and not its critic.
#[test]
fn a_stage_whose_critic_was_recreated_is_reported() {
    let lab = lab(PPO);
    lab.write("tiny.toml", STAGES.replace("reward = {", "critic = { from = \"stage:rm\" }\nreward = {"));
    let note = "stage \"ppo\" started from an earlier run of \"rm\"; rerun it with --from ppo";
    let first = lab.run(&[]);
    first.succeeds();
    assert!(!first.err.contains("an earlier run") && !first.out.contains("an earlier run"), "{first:#?}");
    let args = ["run", "tiny.toml", "--only", "rm", "--set", "stage.rm.train.optimizer.lr=3e-2"];
    let second = lab.ask(&args);
    second.succeeds();
    assert!(second.err.contains(note) || second.out.contains(note), "{second:#?}");
}
