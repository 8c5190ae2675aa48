//! The pipeline of a trial: two objectives from the same start, with the same data, seeds and steps.

use std::fmt::Write as _;

use plugin_api::manifest::DataKind;

/// The part that both objectives share, by kind of data.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The known objectives to compare with, the nearest first.
    pub known: &'static [&'static str],
    /// An objective that is measured in both runs, with weight 0; for the others the answers' true reward is what
    /// compares.
    pub measure: Option<&'static str>,
    /// Whether a small model is tuned first.
    pub needs_start: bool,
    /// Keys of `[data]`.
    data: &'static str,
    /// Keys of `[train]` besides the steps.
    train: &'static str,
    /// Further keys of a stage.
    more: &'static str,
    /// The most steps: with more, this world has nothing left to teach.
    pub most_steps: u64,
}

/// Keys of `[train]` for a model that learns from scratch; the warm-up has to fit into the steps.
fn from_scratch(steps: u64) -> String {
    let warmup = (steps / 10).clamp(1, 20);
    format!("schedule = {{ kind = \"cosine\", warmup = {warmup}, min_lr_ratio = 0.1 }}\noptimizer = {{ lr = 2e-3 }}")
}

/// Keys of `[train]` for one that is tuned further.
const TUNED: &str = "optimizer = { lr = 3e-4, weight_decay = 0.0 }";
/// The model of every run.
const MODEL: &str = "model = { layers = 2, dim = 96, heads = 4, context = 64 }";
/// The true reward of the world.
pub const GOLD: &str = "world";
/// The most steps of the start.
pub const MOST_START_STEPS: u64 = 400;
/// Evaluations of a run after the one before the first step.
pub const EVALUATIONS: u64 = 6;

/// The recipe for a kind of data; `None` if the quickstart world has none.
pub fn recipe(kind: &DataKind) -> Option<Recipe> {
    let tuned = Recipe {
        known: &["dpo"],
        measure: None,
        needs_start: true,
        data: "rows = 6400",
        train: "batch = { pairs = 32 }",
        more: "",
        most_steps: 200,
    };
    Some(match kind {
        kind if *kind == DataKind::TEXT => Recipe {
            known: &["ce"],
            measure: Some("ce"),
            needs_start: false,
            data: "rows = 8000",
            train: "batch = { tokens = 1024 }",
            most_steps: 1500,
            ..tuned
        },
        kind if *kind == DataKind::PROMPT_COMPLETION => Recipe {
            known: &["sft"],
            measure: Some("sft"),
            needs_start: false,
            data: "rows = 16000, flawed = 0.4",
            train: "batch = { sequences = 32 }",
            most_steps: 800,
            ..tuned
        },
        kind if *kind == DataKind::PREFERENCE => tuned,
        kind if *kind == DataKind::UNPAIRED => {
            Recipe { known: &["kto"], data: "rows = 12800", train: "batch = { sequences = 64 }", ..tuned }
        }
        kind if *kind == DataKind::PROMPT => Recipe {
            known: &["grpo", "rloo", "ppo"],
            data: "rows = 8000",
            train: "batch = { prompts = 24 }",
            more: "rollout = { prompts = 48, samples = 4, epochs = 1, max_new_tokens = 24 }\n",
            most_steps: 120,
            ..tuned
        },
        _ => return None,
    })
}

/// How long each stage trains and how much it evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Steps of the start, if there is one.
    pub start: u64,
    /// Steps of each objective.
    pub steps: u64,
    /// Held-out prompts that are answered in an evaluation.
    pub answers: u64,
}

/// A pipeline's stages and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stages {
    /// The stage that tunes the start.
    pub start: Option<String>,
    /// The stages of the known and the tried objective: named like these.
    pub runs: [String; 2],
    /// For running text: stages that train nothing and measure the true reward of each run's model.
    pub gold: Option<[String; 2]>,
}

impl Stages {
    /// The stages of a trial of `id` beside `against`.
    pub fn new(recipe: &Recipe, kind: &DataKind, id: &str, against: &str) -> Stages {
        let free = |wanted: &str| {
            let taken = |name: &str| name == id || name == against;
            if taken(wanted) { format!("{wanted}.first") } else { wanted.to_owned() }
        };
        let runs = [against.to_owned(), id.to_owned()];
        let gold = (*kind == DataKind::TEXT).then(|| runs.clone().map(|run| format!("{run}.answers")));
        Stages { start: recipe.needs_start.then(|| free("start")), runs, gold }
    }

    /// The pipeline as TOML.
    pub fn text(&self, recipe: &Recipe, name: &str, runs_dir: &str, length: Length) -> String {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let Length { start, steps, answers } = length;
        let mut text = format!(
            "name = {}\nruns_dir = {}\nseed = 7\ntokenizer.kind = \"bytes\"\n\n\
             [data]\nsource = \"synthetic\"\ntasks = [\"copy\", \"reverse\", \"sort\"]\nheld_out_rows = {}\n\n\
             [train.optimizer]\nbetas = [0.9, 0.99]\nweight_decay = 0.1\nclip = 1.0\n\n\
             [checkpoint]\nevery = 0\n",
            quoted(name),
            quoted(runs_dir),
            answers.max(200)
        );
        let gold = format!("reward = {{ plugin = \"{GOLD}\" }}\neval.generate = {answers}\n");
        if let Some(stage) = &self.start {
            _ = write!(
                text,
                "\n# The start of both: tuned from scratch, on demonstrations of which two in five are flawed.\n\
                 [[stage]]\nname = {}\n{MODEL}\nobjective = {{ plugin = \"sft\" }}\n{gold}\
                 data = {{ rows = 12800, flawed = 0.4 }}\n\n\
                 [stage.train]\nsteps = {start}\nbatch = {{ sequences = 32 }}\n{}\n",
                quoted(stage),
                from_scratch(start)
            );
        }
        for run in &self.runs {
            let begin = match &self.start {
                Some(stage) => format!("model.from = {}", quoted(&format!("stage:{stage}"))),
                None => MODEL.to_owned(),
            };
            let is_measured = recipe.measure.filter(|measure| measure != run);
            let objective = match is_measured {
                // The second one has weight 0: it is only measured.
                Some(measure) => {
                    format!("objective = [{{ plugin = {} }}, {{ plugin = \"{measure}\", weight = 0 }}]", quoted(run))
                }
                None => format!("objective = {{ plugin = {} }}", quoted(run)),
            };
            let every = (steps / EVALUATIONS).max(1);
            let answers = if self.gold.is_some() { "eval.tokens = 8000\n".to_owned() } else { gold.clone() };
            let learns = if self.start.is_some() { TUNED.to_owned() } else { from_scratch(steps) };
            _ = write!(
                text,
                "\n[[stage]]\nname = {}\n{begin}\n{objective}\n{answers}eval.every = {every}\ndata = {{ {} }}\n{}\n\
                 [stage.train]\nsteps = {steps}\n{}\n{learns}\n",
                quoted(run),
                recipe.data,
                recipe.more,
                recipe.train
            );
        }
        for (run, stage) in self.runs.iter().zip(self.gold.iter().flatten()) {
            _ = write!(
                text,
                "\n# Trains nothing: the true reward of the model's answers.\n[[stage]]\nname = {}\nmodel.from = {}\n\
                 objective = {{ plugin = \"sft\" }}\n{gold}data = {{ rows = 1 }}\n\
                 train = {{ steps = 0, batch = {{ sequences = 1 }}, optimizer = {{ lr = 1e-3 }} }}\n",
                quoted(stage),
                quoted(&format!("stage:{run}"))
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Plan;

    const ALL: [DataKind; 5] =
        [DataKind::TEXT, DataKind::PROMPT_COMPLETION, DataKind::PREFERENCE, DataKind::UNPAIRED, DataKind::PROMPT];

    /// Catches a pipeline that cannot be read, stages of one name, and objectives that do not get the same keys.
    #[test]
    fn both_objectives_get_the_same_pipeline_but_for_their_name() {
        let lab = tempfile::tempdir().unwrap();
        for kind in ALL {
            let recipe = recipe(&kind).unwrap();
            let stages = Stages::new(&recipe, &kind, "start", "known");
            let text = stages.text(&recipe, "try-start", "runs", Length { start: 10, steps: 12, answers: 64 });
            let file = lab.path().join("try.toml");
            std::fs::write(&file, &text).unwrap();
            let Ok(Plan::Pipeline(pipeline)) = Plan::read(&file, &[]) else { panic!("{text}") };
            let names: Vec<&str> = pipeline.stages().iter().map(|stage| stage.name.as_str()).collect();
            assert!(names.contains(&"known") && names.contains(&"start"), "{names:?}");
            for index in 0..names.len() {
                let mut draft = pipeline.draft(index);
                for slot in draft.plugins().iter().map(|plugin| plugin.slot).collect::<Vec<_>>() {
                    draft.check_options(slot, &[]);
                }
                draft.finish().unwrap_or_else(|error| panic!("{kind:?} {index}: {}\n{text}", error.report()));
            }
            let table: toml::Table = text.parse().unwrap();
            let [known, own] = ["known", "start"].map(|name| {
                let all = table["stage"].as_array().unwrap();
                let stage = all.iter().find(|stage| stage["name"].as_str() == Some(name)).unwrap();
                stage.to_string().replace(&format!("\"{name}\""), "\"it\"")
            });
            assert_eq!(known, own, "{kind:?}");
        }
    }
}
