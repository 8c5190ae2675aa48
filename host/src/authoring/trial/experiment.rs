//! The pipeline of a trial: two objectives from the same start, with the same data, seeds and steps.

use std::fmt::Write as _;

use plugin_api::manifest::DataKind;

use super::needs::Needs;

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
    /// Whether rows are prompts that the policy answers.
    rollouts: bool,
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
/// The same, with ids beyond those of the tokenizer for an objective that composes sequences with tokens of its own.
const MODEL_WITH_SPARE_IDS: &str = "model = { layers = 2, dim = 96, heads = 4, context = 64, vocab = 264 }";
/// The true reward of the world.
pub const GOLD: &str = "world";
/// The most steps of the start.
pub const MOST_START_STEPS: u64 = 400;
/// Evaluations of a run after the one before the first step.
pub const EVALUATIONS: u64 = 6;
/// Answers to each prompt, unless an objective needs more.
const SAMPLES: u64 = 4;

/// The recipe for an objective of these needs; `None` if the quickstart world has none.
pub fn recipe(needs: &Needs) -> Option<Recipe> {
    let tuned = Recipe {
        known: &["dpo"],
        measure: None,
        needs_start: true,
        data: "rows = 6400",
        train: "batch = { pairs = 32 }",
        rollouts: false,
        most_steps: 200,
    };
    Some(match &needs.data {
        kind if *kind == DataKind::TEXT => Recipe {
            known: &["ce"],
            measure: Some("ce"),
            needs_start: false,
            data: "rows = 8000",
            train: "batch = { tokens = 1024 }",
            most_steps: 1500,
            ..tuned
        },
        kind if *kind == DataKind::PROMPT_COMPLETION && needs.segments => Recipe {
            known: &["prm"],
            data: "rows = 12800, segments = true",
            train: "batch = { sequences = 32 }",
            most_steps: 400,
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
        kind if *kind == DataKind::PREFERENCE && !needs.writes => Recipe { known: &["reward"], ..tuned },
        kind if *kind == DataKind::PREFERENCE => tuned,
        kind if *kind == DataKind::UNPAIRED => {
            Recipe { known: &["kto"], data: "rows = 12800", train: "batch = { sequences = 64 }", ..tuned }
        }
        kind if *kind == DataKind::PROMPT => Recipe {
            known: &["grpo", "rloo", "ppo"],
            data: "rows = 8000",
            train: "batch = { prompts = 24 }",
            rollouts: true,
            most_steps: 120,
            ..tuned
        },
        _ => return None,
    })
}

/// How long each stage trains and how much it evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Steps of the start, and of the teacher, if there is one.
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
    /// The stage that trains a teacher.
    pub teacher: Option<String>,
    /// The stages of the known and the tried objective: named like these.
    pub runs: [String; 2],
    /// For running text: stages that train nothing and measure the true reward of each run's model.
    pub gold: Option<[String; 2]>,
    /// Whether [`Recipe::measure`] is measured in both runs. Otherwise each objective is alone in its run: one that composes
    /// its own sequences, for example, can have no other beside it.
    pub measures: bool,
    /// Whether both models write answers, which the true reward scores.
    pub writes: bool,
    needs: [Needs; 2],
}

impl Stages {
    /// The stages of a trial of `id` beside `against`; `needs`: of the known and the tried objective.
    pub fn new(recipe: &Recipe, id: &str, against: &str, needs: [Needs; 2], measures: bool) -> Stages {
        let free = |wanted: &str| {
            let taken = |name: &str| name == id || name == against;
            if taken(wanted) { format!("{wanted}.first") } else { wanted.to_owned() }
        };
        let runs = [against.to_owned(), id.to_owned()];
        let writes = needs.iter().all(|needs| needs.writes);
        let gold =
            (needs[1].data == DataKind::TEXT && writes).then(|| runs.clone().map(|run| format!("{run}.answers")));
        Stages {
            start: recipe.needs_start.then(|| free("start")),
            teacher: needs.iter().any(|needs| needs.teacher).then(|| free("teacher")),
            runs,
            gold,
            measures: measures && recipe.measure.is_some(),
            writes,
            needs,
        }
    }

    /// The key of the tried objective's stage that `key` means: `objective.OPTION` is an option of that objective.
    pub fn key(&self, recipe: &Recipe, key: &str) -> String {
        let [_, tried] = &self.runs;
        let is_numbered = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
        match key.strip_prefix("objective.") {
            _ if key.starts_with("stage.") => key.to_owned(),
            Some(option) if !is_numbered(option) && self.second(recipe, tried).is_some() => {
                format!("stage.{tried}.objective.0.{option}")
            }
            _ => format!("stage.{tried}.{key}"),
        }
    }

    /// The objective that is measured next to `run`, with weight 0.
    fn second(&self, recipe: &Recipe, run: &str) -> Option<&'static str> {
        recipe.measure.filter(|measure| self.measures && *measure != run)
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
        let is_text = self.needs[1].data == DataKind::TEXT;
        let fresh = if is_text && !self.measures { MODEL_WITH_SPARE_IDS } else { MODEL };
        if let Some(stage) = &self.start {
            _ = write!(
                text,
                "\n# The start of both: tuned from scratch, on demonstrations of which two in five are flawed.\n\
                 [[stage]]\nname = {}\n{fresh}\nobjective = {{ plugin = \"sft\" }}\n{gold}\
                 data = {{ rows = 12800, flawed = 0.4 }}\n\n\
                 [stage.train]\nsteps = {start}\nbatch = {{ sequences = 32 }}\n{}\n",
                quoted(stage),
                from_scratch(start)
            );
        }
        if let Some(stage) = &self.teacher {
            let (begin, learns) = match &self.start {
                Some(start) => (format!("model.from = {}", quoted(&format!("stage:{start}"))), TUNED.to_owned()),
                None => (fresh.to_owned(), from_scratch(start)),
            };
            let (plugin, train, gold) = match is_text {
                true => ("ce", "batch = { tokens = 1024 }", ""),
                false => ("sft", "batch = { sequences = 32 }", gold.as_str()),
            };
            _ = write!(
                text,
                "\n# The teacher: trained on examples without flaws.\n\
                 [[stage]]\nname = {}\n{begin}\nobjective = {{ plugin = \"{plugin}\" }}\n{gold}data = {{ rows = 12800 }}\n\n\
                 [stage.train]\nsteps = {start}\n{train}\n{learns}\n",
                quoted(stage)
            );
        }
        let hint = if self.needs.iter().any(|needs| needs.context) { ", hint = true" } else { "" };
        for (run, needs) in self.runs.iter().zip(&self.needs) {
            let begin = match &self.start {
                Some(stage) => format!("model.from = {}", quoted(&format!("stage:{stage}"))),
                None => fresh.to_owned(),
            };
            let objective = match self.second(recipe, run) {
                // The second one has weight 0: it is only measured.
                Some(measure) => {
                    format!("objective = [{{ plugin = {} }}, {{ plugin = \"{measure}\", weight = 0 }}]", quoted(run))
                }
                None => format!("objective = {{ plugin = {} }}", quoted(run)),
            };
            let every = (steps / EVALUATIONS).max(1);
            let answers = match (is_text, self.writes) {
                (true, _) => "eval.tokens = 8000\n",
                (false, true) => gold.as_str(),
                (false, false) => "",
            };
            _ = write!(
                text,
                "\n[[stage]]\nname = {}\n{begin}\n{objective}\n{}{}{answers}eval.every = {every}\ndata = {{ {}{hint} }}\n{}\n\
                 [stage.train]\nsteps = {steps}\n{}\n{}\n",
                quoted(run),
                self.teacher_of(needs).map_or(String::new(), |stage| format!("teacher.from = {}\n", quoted(&stage))),
                if needs.context { "context.prompt = \"hint\"\n" } else { "" },
                recipe.data,
                self.rollout(recipe),
                recipe.train,
                if self.start.is_some() { TUNED.to_owned() } else { from_scratch(steps) },
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

    /// The value of `teacher.from` for a run of these needs.
    fn teacher_of(&self, needs: &Needs) -> Option<String> {
        self.teacher.as_ref().filter(|_| needs.teacher).map(|stage| format!("stage:{stage}"))
    }

    /// The key `rollout` of a run.
    fn rollout(&self, recipe: &Recipe) -> String {
        let samples = self.needs.iter().map(|needs| needs.samples).fold(SAMPLES, u64::max);
        match recipe.rollouts {
            true => format!("rollout = {{ prompts = 48, samples = {samples}, epochs = 1, max_new_tokens = 24 }}\n"),
            false => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Plan;

    /// Needs of every recipe, and of what a recipe adds for an objective.
    fn all() -> Vec<Needs> {
        let [text, rows, pairs, labelled, prompts] =
            [DataKind::TEXT, DataKind::PROMPT_COMPLETION, DataKind::PREFERENCE, DataKind::UNPAIRED, DataKind::PROMPT]
                .map(Needs::of_data);
        let also = [
            Needs { teacher: true, ..text.clone() },
            Needs { teacher: true, ..rows.clone() },
            Needs { context: true, ..rows.clone() },
            Needs { segments: true, writes: false, ..rows.clone() },
            Needs { writes: false, ..pairs.clone() },
            Needs { teacher: true, context: true, samples: 9, ..prompts.clone() },
        ];
        [text, rows, pairs, labelled, prompts].into_iter().chain(also).collect()
    }

    /// Catches a pipeline that cannot be read, stages of one name, objectives that do not get the same keys, an objective
    /// without the teacher, the other prompts, the segments or the number of answers that it needs, and a teacher for one that
    /// reads none.
    #[test]
    fn both_objectives_get_the_same_pipeline_but_for_their_name_and_models() {
        for needs in all() {
            for measures in [true, false] {
                let recipe = recipe(&needs).unwrap();
                let plain = Needs { teacher: false, context: false, ..needs.clone() };
                let stages = Stages::new(&recipe, "start", "teacher", [plain, needs.clone()], measures);
                let text = stages.text(&recipe, "try-start", "runs", Length { start: 10, steps: 12, answers: 64 });
                let Ok(Plan::Pipeline(pipeline)) = Plan::parse("try.toml", "try", &text, &[], None) else {
                    panic!("{text}")
                };
                let names: Vec<&str> = pipeline.stages().iter().map(|stage| stage.name.as_str()).collect();
                assert!(names.contains(&"teacher") && names.contains(&"start"), "{names:?}");
                assert_eq!(names.contains(&"teacher.first"), needs.teacher, "{names:?}");
                for index in 0..names.len() {
                    let mut draft = pipeline.draft(index);
                    for slot in draft.plugins().iter().map(|plugin| plugin.slot).collect::<Vec<_>>() {
                        draft.check_options(slot, &[]);
                    }
                    draft.finish().unwrap_or_else(|error| panic!("{needs:?} {index}: {}\n{text}", error.report()));
                }
                let table: toml::Table = text.parse().unwrap();
                let [known, own] = ["teacher", "start"].map(|name| {
                    let all = table["stage"].as_array().unwrap();
                    let mut stage = all.iter().find(|stage| stage["name"].as_str() == Some(name)).unwrap().clone();
                    let own = stage.as_table_mut().unwrap();
                    let roles = ["teacher", "context"].map(|role| own.remove(role).is_some());
                    let segments = own["data"].get("segments").is_some();
                    let samples =
                        own.get("rollout").map_or(needs.samples, |own| own["samples"].as_integer().unwrap() as u64);
                    assert!(segments == needs.segments && samples >= needs.samples, "{text}");
                    (stage.to_string().replace(&format!("\"{name}\""), "\"it\""), roles)
                });
                assert_eq!(known.0, own.0, "{needs:?}");
                assert_eq!((known.1, own.1), ([false, false], [needs.teacher, needs.context]), "{text}");
            }
        }
    }

    /// Catches an option that is set for the measured or the known objective instead of the tried one.
    #[test]
    fn keys_are_those_of_the_tried_objective() {
        let needs = Needs::of_data(DataKind::TEXT);
        let recipe = recipe(&needs).unwrap();
        let key = |measures, id: &str, key: &str| {
            let stages = Stages::new(&recipe, id, "known", [needs.clone(), needs.clone()], measures);
            stages.key(&recipe, key)
        };
        assert_eq!(key(true, "mine", "objective.a"), "stage.mine.objective.0.a");
        assert_eq!(key(true, "mine", "objective.1.a"), "stage.mine.objective.1.a");
        assert_eq!(key(false, "mine", "objective.a"), "stage.mine.objective.a");
        assert_eq!(key(true, "ce", "objective.a"), "stage.ce.objective.a");
        assert_eq!(key(true, "mine", "train.optimizer.lr"), "stage.mine.train.optimizer.lr");
        assert_eq!(key(true, "mine", "stage.known.seed"), "stage.known.seed");
    }
}
