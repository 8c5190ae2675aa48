//! Mistakes of different stages: of keys, options, roles, data, rewards, evaluations and metrics. They are reported together.

use serde_json::json;

use crate::support::lab::{Lab, SMALL};

/// Runs `tiny.toml` and checks that it is refused with exactly these mistakes, in this order, and leaves nothing behind. Each is
/// given as its line and the beginning of its text.
#[track_caller]
fn refused_together(lab: &Lab, expected: &[(&str, &str)]) {
    let before = lab.everything();
    for command in ["run", "check"] {
        let answer = lab.ask(&[command, "tiny.toml"]);
        answer.refuses(2, &[&format!("{} mistakes in tiny.toml", expected.len())]);
        let mut found = answer.err.lines().filter_map(|line| line.strip_prefix("  tiny.toml:"));
        for (key, text) in expected {
            let line = found.next().unwrap_or_default();
            let (_, message) = line.split_once(' ').unwrap_or_default();
            assert!(message.starts_with(&format!("{key}: {text}")), "{key}: {text}: {answer:#?}");
        }
        assert_eq!(found.next(), None, "{answer:#?}");
    }
    assert_eq!(lab.everything(), before, "something was left behind");
}

fn rows(lab: &Lab) {
    let row = |i: usize| json!({"prompt": format!("{i}? "), "completion": "yes"}).to_string() + "\n";
    lab.write("rows.jsonl", (0..60).map(row).collect::<String>());
}

/// Catches a report that ends once the plugins are loaded: with the first table that no objective reads, the first column that a
/// row lacks, the first prompt that is too long, or the first metric that is not measured.
#[test]
fn mistakes_in_roles_data_rewards_evaluation_and_metrics_are_reported_at_once() {
    let lab = Lab::new();
    rows(&lab);
    let rest = r#"
[data]
source = "jsonl"
path = "rows.jsonl"
held_out = 0.2

[objective]
plugin = "sft"

[critic]
from = "policy"

[rollout]
prompts = 4
max_new_tokens = 4

[[reward]]
plugin = "exact"
column = "solution"

[train]
steps = 5
batch = { sequences = 4 }
optimizer = { lr = 1e-2 }
context_schedule = [[0, 16], [3, 48]]

[eval]
every = 5
generate = 4
early_stop = { metric = "max:eval/reward/exakt" }

[checkpoint]
best = "min:eval/perplexitie"

[sample]
prompts = ["fine", "a prompt that is far too long for a context of forty-eight tokens"]
"#;
    lab.write("tiny.toml", format!("{SMALL}{rest}"));
    refused_together(
        &lab,
        &[
            ("data", "rows.jsonl:4: `solution`: missing; 7 more rows have this mistake"),
            ("critic", "unused: no objective reads a critic"),
            ("rollout", "unused: no objective reads a rollout"),
            ("train.context_schedule", "unused: rows are not cut to a length that changes"),
            ("eval.early_stop.metric", "no evaluation reports \"eval/reward/exakt\""),
            ("checkpoint.best", "no evaluation reports"),
            ("sample.prompts", "\"a prompt that is far too long"),
        ],
    );
}

/// Catches a report that ends with the options of plugins, and checks that are made although what they read is wrong itself: the
/// objective cannot be created, so nothing is known about the roles that it reads.
#[test]
fn mistakes_in_keys_and_options_do_not_hide_those_in_files() {
    let lab = Lab::new();
    let rest = r#"
[data]
source = "jsonl"
path = "nowhere.jsonl"
held_out = 0.2

[objective]
plugin = "dpo"
betta = 0.2

[critic]
from = "policy"

[train]
stepps = 5
batch = { prompts = 4 }
optimizer = { lr = 1e-2 }
context_schedule = [[0, 16], [3, 48]]

[checkpoint]
best = "accuracy"

[sample]
prompts = "a prompt that is far too long for a context of forty-eight tokens"
"#;
    lab.write("tiny.toml", format!("{SMALL}{rest}"));
    refused_together(
        &lab,
        &[
            ("data", "there is no file or folder nowhere.jsonl"),
            ("objective.betta", "unknown key; did you mean `beta`?"),
            ("train.stepps", "unknown key; did you mean `steps`?"),
            ("train.batch.prompts", "this data comes in pairs"),
            ("train.context_schedule", "unused: rows are not cut"),
            ("checkpoint.best", "write \"min:accuracy\" or \"max:accuracy\""),
            ("sample.prompts", "\"a prompt that is far too long"),
        ],
    );
}

/// Catches a mistake in a model that hides those in other keys, and one that is reported again by a check of what it leads to.
#[test]
fn a_missing_model_does_not_hide_mistakes_in_data_batches_or_the_backend() {
    let lab = Lab::new();
    let rest = r#"
[backend]
plugin = "candle"
dtype = "f64"

[model]
from = "nowhere"

[data]
source = "jsonl"
path = "nowhere.jsonl"

[objective]
plugin = "sft"

[train]
steps = 5
batch = { pairs = 4 }
optimizer = { lr = 1e-2 }
"#;
    lab.write("tiny.toml", rest);
    refused_together(
        &lab,
        &[
            ("backend.dtype", "backend \"candle\" computes in"),
            ("model.from", "there is no model folder nowhere"),
            ("data", "there is no file or folder nowhere.jsonl"),
            ("train.batch.pairs", "this data comes in sequences"),
        ],
    );
}

/// Catches reports of what only follows from a mistake: here the prompts to answer, and the default metric of the best checkpoint.
#[test]
fn consequences_of_a_mistake_are_not_reported() {
    let lab = Lab::new();
    rows(&lab);
    let rest = r#"
[data]
source = "jsonl"
path = "rows.jsonl"
held_out = 0.0

[objective]
plugin = "sft"

[train]
steps = 5
batch = { sequences = 4 }
optimizer = { lr = 1e-2 }

[eval]
every = 5
generate = 4
samples = 2
"#;
    lab.write("tiny.toml", format!("{SMALL}{rest}"));
    let nothing = "unused: data.held_out = 0 leaves nothing to evaluate on";
    refused_together(&lab, &[("eval.every", nothing), ("eval.generate", nothing)]);
    let rollout =
        "held_out = 0.2\n\n[rollout]\nprompts = 4\nmax_new_tokens = 4\n\n[reward]\nplugin = \"length\"\ntarget = 3.5";
    let text = format!("{SMALL}{}", rest.replace("held_out = 0.0", rollout).replace("sequences = 4", "pairs = 4"));
    lab.write("tiny.toml", text);
    let expected = [
        ("rollout", "unused: no objective reads a rollout"),
        ("reward.target", "expected an integer"),
        ("train.batch.pairs", "this data comes in sequences"),
    ];
    refused_together(&lab, &expected);
}

/// Catches a mistake that is reported a second time by a check that reads the same key, one that is listed under the key of another
/// table, and rules for metrics that follow from a mistake.
#[test]
fn a_mistake_is_reported_once_and_under_its_own_key() {
    let lab = Lab::new();
    let rest = r#"
[data]
source = "synthetic"
rows = 60

[[objective]]
plugin = "dpo"
loss = "ipo"
label_smoothing = 0.1

[train]
steps = 5
batch = { pairs = 4 }
optimizer = { lr = 1e-2, groups = [{ match = "[", lr_scale = 0.1 }] }

[eval]
every = 5
generate = 4
samples = 0
pass_at = [1, 4]

[checkpoint]
best = "max:eval/pass@4"
"#;
    lab.write("tiny.toml", format!("{SMALL}{rest}"));
    refused_together(
        &lab,
        &[
            ("objective.0.label_smoothing", "dpo: option `label_smoothing`"),
            ("train.optimizer.groups.0.match", "not a valid glob"),
            ("eval.samples", "expected an integer from 1"),
        ],
    );
    let rollout = "\n[reward]\nplugin = \"length\"\n\n[rollout]\nprompts = 4\n";
    let rest = r#"
[data]
source = "synthetic"
rows = 60

[objective]
plugin = "ppo"

[train]
steps = 5
batch = { prompts = 4 }
optimizer = { lr = 1e-2, groups = [{ match = "[", lr_scale = 0.1 }] }

[eval]
every = 5
"#;
    lab.write("tiny.toml", format!("{SMALL}{rollout}{rest}"));
    let expected = [("rollout.max_new_tokens", "missing"), ("train.optimizer.groups.0.match", "not a valid glob")];
    refused_together(&lab, &expected);
}
