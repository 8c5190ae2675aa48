//! The experiments that are disturbed: each ends within a few tenths of a second, saves at every step, keeps one checkpoint
//! besides the best, evaluates, and draws samples if its objective can.

use serde_json::json;

/// An experiment with its files.
pub struct Case {
    /// Its name in the results.
    pub name: &'static str,
    /// `tiny.toml`.
    pub experiment: String,
    /// The stages of a pipeline; empty for a single run.
    pub stages: &'static [&'static str],
}

impl Case {
    /// The files of its folder, by name.
    pub fn files(&self) -> [(&'static str, String); 3] {
        let text = "one two three four.\n".repeat(2);
        [("tiny.toml", self.experiment.clone()), ("rows.jsonl", rows()), ("text.txt", text)]
    }

    /// The file whose existence makes the folder `runs/tiny` resumable.
    pub fn marker(&self) -> &'static str {
        if self.stages.is_empty() { "runs/tiny/experiment.toml" } else { "runs/tiny/pipeline.toml" }
    }
}

fn rows() -> String {
    let row = |i| json!({"prompt": format!("{i}? "), "chosen": "yes", "rejected": "well, no", "completion": "yes"});
    (0..12).map(|i| row(i).to_string() + "\n").collect()
}

const SHARED: &str = r#"
seed = 7
backend = { plugin = "candle", threads = 1 }
checkpoint = { every = 1, keep = 1 }
"#;

const MODEL: &str = "model = { layers = 1, dim = 8, heads = 2, context = 24 }\n";
const ROWS: &str = "data = { source = \"jsonl\", path = \"rows.jsonl\", held_out = 0.25 }\n";
const EVAL: &str = "eval = { every = 1 }\n";
const TRAIN: &str = "steps = 3\noptimizer = { lr = 3e-3 }\n";

fn single(name: &'static str, middle: &str, train: &str) -> Case {
    let experiment = format!("{SHARED}{MODEL}{middle}\n[train]\n{TRAIN}{train}\n");
    Case { name, experiment, stages: &[] }
}

/// Every objective alone, and a pipeline. [`pipeline_of_five`] is not among them: call by call it would take hours.
pub fn all() -> Vec<Case> {
    let samples = "sample = { every = 1, prompts = [\"1? \"], max_tokens = 4 }\n";
    let ce =
        "data = { source = \"synthetic\", rows = 40 }\nobjective.plugin = \"ce\"\neval = { every = 1, tokens = 96 }\n";
    let ppo = format!("{ROWS}{}{PPO}", EVAL.replace(" }", ", generate = 2 }"));
    vec![
        single("ce", &format!("{ce}{samples}"), "batch = { tokens = 48 }"),
        single("sft", &format!("{ROWS}{EVAL}{samples}objective.plugin = \"sft\"\n"), "batch = { sequences = 2 }"),
        single("reward", &format!("{ROWS}{EVAL}objective.plugin = \"reward\"\n"), "batch = { pairs = 2 }"),
        single("dpo", &format!("{ROWS}{EVAL}{samples}objective.plugin = \"dpo\"\n"), "batch = { pairs = 2 }"),
        single("ppo", &ppo, "batch = { prompts = 2 }"),
        pipeline_of_two(),
    ]
}

const PPO: &str = r#"
objective.plugin = "ppo"
critic = { lr = 5e-3 }
reward = [{ plugin = "length", unit = "characters", target = 4 }]
rollout = { prompts = 4, epochs = 1, max_new_tokens = 4 }
"#;

/// Instruction tuning, and PPO from its best checkpoint.
fn pipeline_of_two() -> Case {
    let stages = r#"
train.steps = 2
train.optimizer.lr = 3e-3
data = { source = "jsonl", path = "rows.jsonl", held_out = 0.25 }

[[stage]]
name = "sft"
model = { layers = 1, dim = 8, heads = 2, context = 24 }
objective.plugin = "sft"
eval.every = 1
train.batch.sequences = 2

[[stage]]
name = "ppo"
model.from = "stage:sft/best"
objective.plugin = "ppo"
critic.lr = 5e-3
reward = [{ plugin = "length", unit = "characters", target = 4 }]
eval = { every = 1, generate = 2 }
rollout = { prompts = 4, epochs = 1, max_new_tokens = 4 }
train.batch.prompts = 2
"#;
    Case { name: "pipeline", experiment: format!("{SHARED}{stages}"), stages: &["sft", "ppo"] }
}

/// Five stages of two steps each; the later ones take models from the earlier ones.
pub fn pipeline_of_five() -> Case {
    let stages = r#"
train.steps = 2
train.optimizer.lr = 3e-3

[[stage]]
name = "pre"
model = { layers = 1, dim = 8, heads = 2, context = 24 }
data = { source = "synthetic", rows = 40 }
objective.plugin = "ce"
eval = { every = 1, tokens = 96 }
train.batch.tokens = 48

[[stage]]
name = "sft"
model.from = "stage:pre"
data = { source = "jsonl", path = "rows.jsonl", held_out = 0.25 }
objective.plugin = "sft"
eval.every = 1
train.batch.sequences = 2

[[stage]]
name = "reward"
model.from = "stage:sft"
data = { source = "jsonl", path = "rows.jsonl", held_out = 0.25 }
objective.plugin = "reward"
eval.every = 1
train.batch.pairs = 2

[[stage]]
name = "ppo"
model.from = "stage:sft/best"
data = { source = "jsonl", path = "rows.jsonl", held_out = 0.25 }
objective.plugin = "ppo"
critic = { from = "stage:reward", lr = 5e-3 }
eval = { every = 1, generate = 2 }
rollout = { prompts = 4, epochs = 1, max_new_tokens = 4 }
train.batch.prompts = 2

[[stage.reward]]
model = "stage:reward"
normalise = true

[[stage]]
name = "dpo"
model.from = "stage:sft"
data = { source = "jsonl", path = "rows.jsonl", held_out = 0.25 }
objective.plugin = "dpo"
eval.every = 1
train.batch.pairs = 2
"#;
    let experiment = format!("{SHARED}{stages}");
    Case { name: "pipeline", experiment, stages: &["pre", "sft", "reward", "ppo", "dpo"] }
}
