//! A draft of an experiment: from the parsed tree to a checked value. It collects mistakes until the plugins'
//! options are checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin_api::manifest::OptionSpec;
use serde_json::Value as Json;

use super::collected::{ExperimentFile, Mistakes};
use super::experiment::{Backend, Experiment, RewardSource, resolve};
use super::file::read_text;
use super::form;
use super::options::{SpannedTable, check_options};
use super::overrides::{Override, apply_override};
use crate::error::{Error, Result};
use crate::keys::mistake::{Mistake, refusal};
use crate::keys::notes::Notes;
use crate::keys::tree::{self, Node, join, keys_of, place_of};

/// The key of the list of stages.
pub(super) const STAGE: &str = "stage";

/// The key that makes a file a study.
pub(super) const SWEEP: &str = "sweep";

/// Whether a tree is a study.
pub(super) fn is_study(root: &Node) -> bool {
    root.find(SWEEP).is_some()
}

/// Whether a tree is a pipeline.
pub(super) fn is_pipeline(root: &Node) -> bool {
    root.find(STAGE).is_some()
}

/// An experiment whose plugins' options are not checked yet, with all mistakes so far.
#[derive(Debug)]
pub struct Draft {
    source: ExperimentFile,
    pub(super) mistakes: Vec<Mistake>,
    experiment: Option<Experiment>,
    uses: Vec<PluginUse>,
}

/// A plugin that an experiment names, and its options as written.
#[derive(Debug, Clone)]
pub struct PluginUse {
    /// The backend, or the position of an objective or reward.
    pub slot: Slot,
    /// The plugin's id.
    pub id: String,
    /// Its options, unchecked.
    pub options: SpannedTable,
    checked: bool,
}

/// One of an experiment's plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The backend.
    Backend,
    /// The objective at this position.
    Objective(usize),
    /// The reward at this position.
    Reward(usize),
}

/// A checked experiment that still has the place of each key.
#[derive(Debug)]
pub struct Loaded {
    /// The experiment.
    pub experiment: Experiment,
    source: Arc<ExperimentFile>,
}

impl Draft {
    /// Reads `path` and merges `overrides` into it. Fails only if there is nothing to check: an unreadable file, or
    /// invalid TOML. Mistakes in the experiment are reported by [`Draft::finish`].
    pub fn read(path: &Path, overrides: &[Override]) -> Result<Self> {
        let (file, stem, text) = read_text(path)?;
        Self::parse(&file, &stem, &text, overrides)
    }

    /// As [`Draft::read`], from text; `stem` is the default of `name`.
    pub fn parse(file: &str, stem: &str, text: &str, overrides: &[Override]) -> Result<Self> {
        let file: Arc<str> = file.into();
        let root = tree::parse(&file, text).map_err(|mistakes| refusal(&file, mistakes))?;
        if is_pipeline(&root) {
            return Err(Error::request(format!("{file} is a pipeline of stages, not one experiment")).with_hint(
                "`telos run` and `telos check` accept pipelines; the experiment of one stage is experiment.toml in the folder of its run",
            ));
        }
        if is_study(&root) {
            return Err(Error::request(format!("{file} is a study of several runs, not one experiment")).with_hint(
                "`telos run` and `telos check` accept studies; the experiment of each run is in experiments/ in the study's folder",
            ));
        }
        Ok(Self::with_overrides(&file, stem, root, overrides))
    }

    pub(super) fn with_overrides(file: &Arc<str>, stem: &str, mut root: Node, overrides: &[Override]) -> Self {
        let mut mistakes = Vec::new();
        for (index, over) in overrides.iter().enumerate() {
            if let Err(mistake) = apply_override(&mut root, index, over) {
                mistakes.push(mistake);
            }
        }
        Self::from_tree(file, stem, root, mistakes)
    }

    /// The draft of a whole tree, with the `mistakes` found so far.
    pub(super) fn from_tree(file: &Arc<str>, stem: &str, root: Node, mut mistakes: Vec<Mistake>) -> Self {
        let checked = form::check(&root);
        mistakes.extend(checked.mistakes);
        let mut notes = Notes { root: &root, mistakes };
        let experiment = match serde_json::from_value(serde_json::Value::Object(checked.values)) {
            Ok(written) => Some(resolve(written, stem, &mut notes)),
            Err(error) => {
                notes.refuse("", format!("cannot be read as an experiment: {error}"));
                None
            }
        };
        let mut mistakes = notes.mistakes;
        if let Some(experiment) = &experiment {
            mistakes.extend(unknown_keys_of_models(experiment, &checked.rewards));
        }
        let backend =
            checked.backend.unwrap_or_else(|| SpannedTable::new("backend", root.place.clone(), Vec::new(), "backend"));
        let uses = experiment
            .as_ref()
            .map_or_else(Vec::new, |experiment| uses(experiment, backend, checked.objectives, checked.rewards));
        Self { source: ExperimentFile { file: file.clone(), root }, mistakes, experiment, uses }
    }

    /// The plugins to load. Those whose id is missing or ill-formed are left out; that is already recorded as a
    /// mistake.
    pub fn plugins(&self) -> &[PluginUse] {
        &self.uses
    }

    /// The folder of runs, as far as it is known already.
    pub fn runs_dir(&self) -> PathBuf {
        self.experiment.as_ref().map_or_else(|| "runs".into(), |experiment| experiment.runs_dir.clone().into())
    }

    /// The folder of the run, if the experiment can be read.
    pub fn run_folder(&self) -> Option<PathBuf> {
        self.experiment.as_ref().map(|experiment| Path::new(&experiment.runs_dir).join(&experiment.name))
    }

    /// The name, if the experiment can be read.
    pub fn name(&self) -> Option<&str> {
        self.experiment.as_ref().map(|experiment| experiment.name.as_str())
    }

    /// The backend, without its own options; `None` if the experiment cannot be read.
    pub fn backend(&self) -> Option<&Backend> {
        self.experiment.as_ref().map(|experiment| &experiment.backend)
    }

    /// Checks the options of the plugin in `slot` against the `specs` of its manifest.
    pub fn check_options(&mut self, slot: Slot, specs: &[OptionSpec]) {
        let Some(use_) = self.uses.iter_mut().find(|use_| use_.slot == slot) else {
            return;
        };
        use_.checked = true;
        match (check_options(specs, &use_.options), &mut self.experiment) {
            (Err(mistakes), _) => self.mistakes.extend(mistakes),
            (Ok(options), Some(experiment)) => match slot {
                Slot::Backend => experiment.backend.options = options,
                Slot::Objective(index) => {
                    if let Some(objective) = experiment.objective.get_mut(index) {
                        objective.options = options;
                    }
                }
                Slot::Reward(index) => {
                    if let Some(reward) = experiment.reward.get_mut(index) {
                        reward.options = options;
                    }
                }
            },
            (Ok(_), None) => {}
        }
    }

    /// Marks the options of a plugin that cannot be loaded as checked: they cannot be.
    pub fn leave_unchecked(&mut self, slot: Slot) {
        self.uses.iter_mut().filter(|use_| use_.slot == slot).for_each(|use_| use_.checked = true);
    }

    /// Adds a mistake at `key` that is found only after reading the file, such as a plugin that is not installed.
    pub fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let place = place_of(&self.source.root, key);
        self.mistakes.push(Mistake::new(place, key, message));
    }

    /// All mistakes so far, in the order of reporting.
    pub fn mistakes(&self) -> Vec<&Mistake> {
        let mut mistakes: Vec<&Mistake> = self.mistakes.iter().collect();
        mistakes.sort();
        mistakes
    }

    /// Options that were never checked are refused, not ignored.
    pub(super) fn refuse_unchecked(&mut self) {
        if self.mistakes.is_empty() {
            for use_ in self.uses.iter().filter(|use_| !use_.checked) {
                for name in use_.options.names() {
                    let key = join(use_.options.key(), name);
                    let place = place_of(&self.source.root, &key);
                    let message = format!("this option of plugin \"{}\" was not checked against its manifest", use_.id);
                    self.mistakes.push(Mistake::new(place, key, message));
                }
            }
        }
    }

    /// Returns the experiment with its mistakes, so that what does not depend on them can be checked too. If there are any, its
    /// values are placeholders where the mistakes are.
    ///
    /// # Errors
    /// One error with every mistake if the experiment cannot be read.
    pub fn open(mut self) -> Result<(Loaded, Mistakes)> {
        self.refuse_unchecked();
        let Some(experiment) = self.experiment else { return Err(refusal(&self.source.file, self.mistakes)) };
        let source = Arc::new(self.source);
        Ok((Loaded { experiment, source: source.clone() }, Mistakes::new(source, self.mistakes)))
    }

    /// Returns the experiment, or one error with every mistake.
    pub fn finish(self) -> Result<Loaded> {
        let (loaded, mut mistakes) = self.open()?;
        mistakes.finish()?;
        Ok(loaded)
    }
}

impl PluginUse {
    /// The key that names the plugin: `backend.plugin`, `objective.1.plugin`.
    pub fn key(&self) -> String {
        join(self.options.key(), "plugin")
    }
}

impl Loaded {
    /// The name by which the user wrote table `index` of a list: `reward`, or `reward.0` and so on.
    pub fn key_of(&self, list: &str, index: usize) -> String {
        keys_of(list, &self.source.root, index + 1).pop().unwrap_or_default()
    }

    /// The key of the option of objective `index` that was written and that `is_meant` accepts, by its name and value; if there
    /// is none, the key of the objective.
    pub fn option_key(&self, index: usize, is_meant: impl Fn(&str, &Json) -> bool) -> String {
        let table = self.key_of("objective", index);
        let options = self.experiment.objective.get(index).into_iter().flat_map(|objective| &objective.options);
        let mut written = options.filter(|(name, _)| self.source.root.find(&join(&table, name)).is_some());
        written.find(|(name, value)| is_meant(name, value)).map_or(table.clone(), |(name, _)| join(&table, name))
    }

    /// An empty list of mistakes, for checks of what the experiment names.
    pub fn mistakes(&self) -> Mistakes {
        Mistakes::new(self.source.clone(), Vec::new())
    }

    /// The error for a mistake at `key` that is found only after reading the file, such as a file that does not
    /// exist.
    pub fn refuse(&self, key: &str, message: impl Into<String>) -> Error {
        let place = place_of(&self.source.root, key);
        refusal(&self.source.file, vec![Mistake::new(place, key, message)])
    }
}

/// Mistakes for further keys of rewards that are models: these have no plugin to which the keys could belong.
fn unknown_keys_of_models(experiment: &Experiment, rewards: &[SpannedTable]) -> Vec<Mistake> {
    let models = experiment.reward.iter().zip(rewards).filter_map(|(reward, table)| match reward.source {
        RewardSource::Model { .. } => check_options(&[], table).err(),
        RewardSource::Plugin { .. } => None,
    });
    models.flatten().collect()
}

fn uses(
    experiment: &Experiment,
    backend: SpannedTable,
    objectives: Vec<SpannedTable>,
    rewards: Vec<SpannedTable>,
) -> Vec<PluginUse> {
    let backend = (Slot::Backend, experiment.backend.plugin.clone(), backend);
    let objectives = experiment.objective.iter().zip(objectives).enumerate();
    let objectives = objectives.map(|(index, (one, options))| (Slot::Objective(index), one.plugin.clone(), options));
    let rewards = experiment.reward.iter().zip(rewards).enumerate();
    let rewards = rewards.filter_map(|(index, (one, options))| match &one.source {
        RewardSource::Plugin { plugin } => Some((Slot::Reward(index), plugin.clone(), options)),
        RewardSource::Model { .. } => None,
    });
    std::iter::once(backend)
        .chain(objectives)
        .chain(rewards)
        .filter(|(_, id, _)| !id.is_empty())
        .map(|(slot, id, options)| PluginUse { slot, id, options, checked: false })
        .collect()
}
