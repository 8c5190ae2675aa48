//! Pipelines: a file with `[[stage]]` tables is split into one tree per stage, each an experiment of its own.
//!
//! The keys above the stages apply to every stage; a stage adds to them and replaces them, key by key. Every value
//! keeps the place where it was written, so a mistake in a stage is reported like one in an experiment.
//! `"stage:NAME"` becomes the path of that stage's run.

mod merge;
mod references;
mod runs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::draft::{Draft, Loaded, STAGE};
use super::experiment::is_folder_name;
use super::overrides::{Override, apply_override};
use super::sweep::draws::Swept;
use crate::error::{Error, Result};
use crate::keys::mistake::{Mistake, Place, refusal, suggestion};
use crate::keys::tree::{Entry, Node, Value, join};
use crate::runs::folder::own_file;
use merge::{each_text, leaves_of, merged, split, take};
pub use references::Which;
use references::{referenced_stage, stage_and_key};

/// Prefix of a value that names a stage.
const REFERENCE: &str = "stage:";
/// The most stages in a pipeline.
const MOST_STAGES: usize = 256;
/// The most stages that a message names.
const SHOWN_STAGES: usize = 8;
/// Keys of the pipeline as a whole: all its runs are in one folder.
const WHOLE: [&str; 3] = [STAGE, "runs_dir", "sweep"];

/// A pipeline as written, with all mistakes of the pipeline as a whole.
#[derive(Debug)]
pub struct Pipeline {
    name: String,
    runs_dir: String,
    stages: Vec<Stage>,
    file: Arc<str>,
    mistakes: Vec<Mistake>,
    /// The places of the values that a study gives to its runs, run by run; empty for a pipeline that is not a study.
    swept: Vec<Vec<Place>>,
}

/// One stage.
#[derive(Debug)]
pub struct Stage {
    /// Its name, and that of its run within the pipeline's folder.
    pub name: String,
    /// The earlier stages whose models it uses.
    pub inputs: Vec<StageModel>,
    root: Node,
    mistakes: Vec<Mistake>,
}

/// A stage's use of an earlier stage's model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageModel {
    /// Position of the earlier stage.
    pub stage: usize,
    /// The key that names it, such as `model.from`.
    pub key: String,
    /// Which of the stage's models it is.
    pub which: Which,
}

impl Pipeline {
    /// Creates the pipeline from a tree for which [`is_pipeline`](super::draft::is_pipeline) holds.
    pub(super) fn new(file: &Arc<str>, stem: &str, root: Node, overrides: &[Override]) -> Self {
        Self::with_runs(file, stem, root, overrides, Swept::default())
    }

    /// As [`Pipeline::new`], for a study: its runs replace the last stage.
    pub(super) fn with_runs(file: &Arc<str>, stem: &str, mut root: Node, overrides: &[Override], runs: Swept) -> Self {
        let mut mistakes = Vec::new();
        let of_a_stage = |over: &Override| over.path().strip_prefix("stage.").map(str::to_owned);
        for (index, over) in overrides.iter().enumerate().filter(|(_, over)| of_a_stage(over).is_none()) {
            mistakes.extend(apply_override(&mut root, index, over).err());
        }
        let (shared, tables) = split(root, &mut mistakes);
        let mut name = match shared.find("name").map(|node| &node.value) {
            Some(Value::Text(name)) => name.clone(),
            _ => stem.to_owned(),
        };
        if !is_folder_name(&name) {
            let place = shared.find("name").unwrap_or(&shared).place.clone();
            let message =
                format!("\"{}\" is not a plain folder name; for example \"my-pipeline\"", name.escape_debug());
            mistakes.push(Mistake::new(place, "name", message));
            // A replacement, so that run names derived from it are not reported too.
            name = "pipeline".to_owned();
        } else if let Some(own) = own_file(&name) {
            let place = shared.find("name").unwrap_or(&shared).place.clone();
            let message = format!(
                "\"{name}\" is reserved for a file or folder that Telos writes ({own}); for example \"my-pipeline\""
            );
            mistakes.push(Mistake::new(place, "name", message));
            name = "pipeline".to_owned();
        }
        let runs_dir = match shared.find("runs_dir").map(|node| &node.value) {
            Some(Value::Text(folder)) => folder.clone(),
            _ => "runs".to_owned(),
        };
        let mut pipeline = Self { name, runs_dir, stages: Vec::new(), file: file.clone(), mistakes, swept: Vec::new() };
        if tables.len() > MOST_STAGES {
            let message = format!("{} stages; a pipeline has at most {MOST_STAGES}", tables.len());
            pipeline.mistakes.push(Mistake::new(shared.place.clone(), STAGE, message));
            return pipeline;
        }
        for table in tables {
            pipeline.add(&shared, table);
        }
        pipeline.refuse_unused(&shared);
        for (index, over) in overrides.iter().enumerate() {
            if let Some(path) = of_a_stage(over) {
                pipeline.override_stage(index, over, &path);
            }
        }
        pipeline.replace_last(runs);
        for index in 0..pipeline.stages.len() {
            pipeline.resolve_references(index);
        }
        pipeline
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of all its runs.
    pub fn folder(&self) -> PathBuf {
        self.runs_dir().join(&self.name)
    }

    /// The folder of runs.
    pub fn runs_dir(&self) -> &Path {
        Path::new(&self.runs_dir)
    }

    /// The stages in order.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The name of the run of stage `index`, as [`crate::runs::RunFolder`] expects it.
    pub fn run_name(&self, index: usize) -> String {
        format!("{}/{}", self.name, self.stages[index].name)
    }

    /// The folder of the run of stage `index`.
    pub fn stage_folder(&self, index: usize) -> PathBuf {
        self.runs_dir().join(self.run_name(index))
    }

    /// The position of the stage of this name.
    ///
    /// # Errors
    /// A request error that offers the nearest name.
    pub fn position(&self, name: &str) -> Result<usize> {
        self.find(name).ok_or_else(|| {
            Error::request(format!("there is no stage \"{name}\" in {}", self.file))
                .with_hint(suggestion(name, self.names()))
        })
    }

    /// The experiment of stage `index`, whose plugins' options are not checked yet.
    pub fn draft(&self, index: usize) -> Draft {
        let stage = &self.stages[index];
        Draft::from_tree(&self.file, &stage.name, stage.root.clone(), stage.mistakes.clone())
    }

    /// Returns the experiments of all stages, or one error with every mistake of every stage.
    ///
    /// # Errors
    /// A request error.
    pub fn finish(&self, mut drafts: Vec<Draft>) -> Result<Vec<Loaded>> {
        let mut found: BTreeMap<Mistake, Vec<&str>> = BTreeMap::new();
        for (draft, stage) in drafts.iter_mut().zip(&self.stages) {
            draft.refuse_unchecked();
            for mistake in &draft.mistakes {
                let stages = found.entry(mistake.clone()).or_default();
                stages.extend((!stages.contains(&stage.name.as_str())).then_some(stage.name.as_str()));
            }
        }
        let mistakes: Vec<Mistake> = self.mistakes.iter().cloned().chain(self.named(found)).collect();
        if mistakes.is_empty() {
            return drafts.into_iter().map(Draft::finish).collect();
        }
        Err(refusal(&self.file, mistakes))
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.stages.iter().position(|stage| stage.name == name)
    }

    fn names(&self) -> Vec<&str> {
        self.stages.iter().map(|stage| stage.name.as_str()).collect()
    }

    /// Adds the stage of `table`, merged into the shared keys.
    fn add(&mut self, shared: &Node, mut table: Node) {
        let own = table.place.clone();
        let placeholder = format!("stage-{}", self.stages.len());
        let (name, place) = match take(&mut table, "name") {
            Some(Node { value: Value::Text(name), place }) => (name, place),
            Some(other) => {
                let message = format!("expected a string (not empty), found {}", other.found());
                self.mistakes.push(Mistake::new(other.place.clone(), "stage.name", message));
                (placeholder.clone(), other.place)
            }
            None => {
                let message = "missing; each stage has a name, for example name = \"sft\"";
                self.mistakes.push(Mistake::new(own.clone(), "stage.name", message));
                (placeholder.clone(), own.clone())
            }
        };
        let name = if !is_folder_name(&name) {
            let message = format!("\"{}\" is not a plain folder name; for example \"sft\"", name.escape_debug());
            self.mistakes.push(Mistake::new(place.clone(), "stage.name", message));
            placeholder
        } else if let Some(own) = own_file(&name) {
            let message =
                format!("\"{name}\" is reserved for a file or folder that Telos writes ({own}); for example \"sft\"");
            self.mistakes.push(Mistake::new(place.clone(), "stage.name", message));
            placeholder
        } else if self.find(&name).is_some() {
            self.mistakes.push(Mistake::new(
                place.clone(),
                "stage.name",
                format!("an earlier stage is also named \"{name}\""),
            ));
            placeholder
        } else {
            name
        };
        for key in WHOLE {
            if let Some(node) = take(&mut table, key) {
                self.mistakes.push(Mistake::new(node.place, join(STAGE, key), not_a_key_of_a_stage(key)));
            }
        }
        let mut root = merged(shared, table);
        take(&mut root, "name");
        if let Value::Table(table) = &mut root.value {
            let node = Node { value: Value::Text(format!("{}/{name}", self.name)), place };
            table.0.insert(0, Entry { key: "name".to_owned(), node });
        }
        root.place = own;
        self.stages.push(Stage { name, inputs: Vec::new(), root, mistakes: Vec::new() });
    }

    /// Refuses a shared value that every stage replaces, because it is unused.
    fn refuse_unused(&mut self, shared: &Node) {
        let mut leaves = Vec::new();
        leaves_of(shared, "", &mut leaves);
        for (key, place) in leaves.into_iter().filter(|(key, _)| key != "name" && key != "runs_dir") {
            let used = self.stages.iter().any(|stage| stage.root.find(&key).is_some_and(|node| node.place == place));
            if !used && !self.stages.is_empty() {
                let message =
                    format!("unused: every stage sets this key; remove it, or set it for one stage: stage.NAME.{key}");
                self.mistakes.push(Mistake::new(place, key, message));
            }
        }
    }

    /// Merges an override into one stage, which `path` names by name or number.
    fn override_stage(&mut self, index: usize, over: &Override, path: &str) {
        let (name, key) = stage_and_key(&self.names(), path);
        let number = || name.parse().ok().filter(|number| *number < self.stages.len());
        let done = match self.find(name).or_else(number) {
            None => Err(format!("there is no stage `{name}`; {}", suggestion(name, self.names()))),
            Some(_) if key.is_empty() => Err(format!("a key of the stage is missing; write stage.{name}.KEY=VALUE")),
            Some(_) if WHOLE.contains(&key) || key == "name" => Err(not_a_key_of_a_stage(key)),
            Some(at) => {
                apply_override(&mut self.stages[at].root, index, &over.at(key)).map_err(|mistake| mistake.message)
            }
        };
        if let Err(message) = done {
            self.mistakes.push(Mistake::new(over.place(index), over.path(), message));
        }
    }

    /// Replaces `"stage:NAME"` by paths in stage `index`, except in prompts, which are text.
    fn resolve_references(&mut self, index: usize) {
        let mut root = std::mem::replace(
            &mut self.stages[index].root,
            Node { value: Value::Bool(false), place: Place::File(self.file.clone()) },
        );
        let (mut inputs, mut mistakes) = (Vec::new(), Vec::new());
        each_text(&mut root, "", &mut |key, text, place| {
            let Some(wanted) = text.strip_prefix(REFERENCE).filter(|_| !key.starts_with("sample.")) else { return };
            match referenced_stage(&self.names(), index, wanted) {
                Ok((stage, which)) => {
                    *text = which.path(&self.stage_folder(stage)).to_string_lossy().into_owned();
                    inputs.push(StageModel { stage, key: key.to_owned(), which });
                }
                Err(message) => mistakes.push(Mistake::new(place.clone(), key, message)),
            }
        });
        let stage = &mut self.stages[index];
        (stage.root, stage.inputs) = (root, inputs);
        stage.mistakes.extend(mistakes);
    }
}

fn not_a_key_of_a_stage(key: &str) -> String {
    match key {
        "runs_dir" => "must be set above the stages: all runs of a pipeline are in one folder".to_owned(),
        "name" => "the name of a stage cannot be overridden".to_owned(),
        "sweep" => "must be set above the stages: it applies to the last one".to_owned(),
        _ => "a stage cannot contain stages".to_owned(),
    }
}
