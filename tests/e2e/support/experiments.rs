//! Experiments for tests of several topics: preferences, rollouts, a pipeline of two stages.

use serde_json::json;

use super::lab::{Lab, ROWS, SMALL, TINY};

/// The part that these experiments share, besides model and rows.
pub const SHARED: &str = r#"
[eval]
every = 10
"#;

/// Ranks pairs.
pub const REWARD: &str = r#"
[objective]
plugin = "reward"

[train]
steps = 30
batch = { pairs = 8 }
optimizer = { lr = 3e-3 }
"#;

/// Prefers without a reward model.
pub const DPO: &str = r#"
[objective]
plugin = "dpo"

[train]
steps = 20
batch = { pairs = 8 }
optimizer = { lr = 3e-3 }
"#;

/// Learns from its own answers; two epochs of two steps each over every rollout.
pub const PPO: &str = r#"
[objective]
plugin = "ppo"
whiten_advantages = true

[[reward]]
plugin = "length"
unit = "characters"
target = 4

[rollout]
prompts = 8
epochs = 2
max_new_tokens = 8

[train]
steps = 12
batch = { prompts = 4 }
optimizer = { lr = 3e-3 }
"#;

/// Rows with the keys of pairs and of prompts: every objective reads those that it needs.
pub fn rows(count: u64) -> String {
    let line = |i| json!({"prompt": format!("{i}? "), "chosen": "yes", "rejected": "well, no"}).to_string() + "\n";
    (0..count).map(line).collect()
}

/// A folder with `tiny.toml` of this objective, and rows.
pub fn lab(objective: &str) -> Lab {
    let lab = Lab::new();
    write(&lab, "tiny", objective);
    lab.write("rows.jsonl", rows(60));
    lab.write("text.txt", "one two three four. ".repeat(100));
    lab
}

/// Writes `NAME.toml` of this objective.
pub fn write(lab: &Lab, name: &str, objective: &str) {
    lab.write(&format!("{name}.toml"), format!("{SMALL}{ROWS}{SHARED}{objective}"));
}

/// PPO with a pre-training term.
pub fn ptx() -> String {
    let term = "[[objective]]\nplugin = \"ce\"\nweight = 0.5\ntext = \"text.txt\"\ntokens = 96\n";
    PPO.replace("[objective]", "[[objective]]") + term
}

/// Two stages, the second from the end of the first.
const STAGES: &str = r#"
[[stage]]
name = "pre"
train.steps = 4

[[stage]]
name = "more"
model.from = "stage:pre"
train.steps = 3
"#;

/// A pipeline of two tiny stages.
pub fn two_stages() -> String {
    let model = "[model]\nlayers = 1\ndim = 16\nheads = 2\ncontext = 16\n";
    let common = TINY.replace(model, "").replace("steps = 8\n", "");
    let shape = "model = { layers = 1, dim = 16, heads = 2, context = 16 }\ntrain.steps = 4";
    format!("{common}{}", STAGES.replacen("train.steps = 4", shape, 1))
}
