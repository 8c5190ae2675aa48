//! Experiments: from a TOML file and the command line's overrides to one checked value.
//!
//! In order: [`tree`] parses, [`overrides`] lays the command line over it, [`form`] checks every value against [`schema`], the
//! result is read as [`written`], [`resolve`] fills in defaults and checks keys against each other and gives an
//! [`experiment`], and once the plugins are loaded [`options`] checks theirs. Mistakes of all these stages come in one
//! list. What the keys name (files, models, plugins) is looked at by others, who add to the same list with
//! [`Draft::refuse`].

pub mod experiment;
mod form;
pub mod mistake;
pub mod options;
pub mod overrides;
pub mod pipeline;
mod resolve;
pub mod schema;
pub mod tree;
// The meaning of each field is said once, in `schema`.
#[allow(missing_docs)]
mod written;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin_api::manifest::OptionSpec;

pub use experiment::Experiment;
pub use mistake::{Mistake, Place};
pub use options::SpannedTable;
pub use overrides::Override;
pub use pipeline::Pipeline;

use crate::error::{Error, Result};
use crate::files;
use resolve::Notes;
use tree::Node;

/// The most bytes of an experiment's file.
const LARGEST: usize = 1 << 20;
/// The most mistakes that are listed.
const LISTED: usize = 100;

/// What a file holds.
#[derive(Debug)]
pub enum Plan {
    /// One experiment.
    Experiment(Box<Draft>),
    /// Several that hand their models on: the file has `[[stage]]` tables.
    Pipeline(Pipeline),
}

impl Plan {
    /// Reads `path` and lays `overrides` over it, whichever of the two it is.
    ///
    /// # Errors
    /// As for [`Draft::read`].
    pub fn read(path: &Path, overrides: &[Override]) -> Result<Self> {
        let (file, stem, text) = read_text(path)?;
        let file: Arc<str> = file.into();
        let root = tree::parse(&file, &text).map_err(|mistakes| refusal(&file, mistakes))?;
        Ok(match Pipeline::is_one(&root) {
            true => Plan::Pipeline(Pipeline::new(&file, &stem, root, overrides)),
            false => Plan::Experiment(Box::new(Draft::laid_over(&file, &stem, root, overrides))),
        })
    }
}

/// An experiment whose plugins have not had their say, with all mistakes so far.
#[derive(Debug)]
pub struct Draft {
    source: Source,
    mistakes: Vec<Mistake>,
    experiment: Option<Experiment>,
    uses: Vec<PluginUse>,
}

/// A plugin that an experiment names, and its options as written.
#[derive(Debug, Clone)]
pub struct PluginUse {
    /// Backend or which objective.
    pub slot: Slot,
    /// The plugin's id.
    pub id: String,
    /// Its options, unchecked.
    pub options: SpannedTable,
    checked: bool,
}

/// Which of an experiment's plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The backend.
    Backend,
    /// The objective of this position.
    Objective(usize),
    /// The reward of this position.
    Reward(usize),
}

/// A checked experiment that still knows where its keys were written.
#[derive(Debug)]
pub struct Loaded {
    /// The experiment.
    pub experiment: Experiment,
    source: Source,
}

#[derive(Debug)]
struct Source {
    file: Arc<str>,
    root: Node,
}

impl Draft {
    /// Reads `path` and lays `overrides` over it. Fails only where there is no experiment to speak of: an unreadable
    /// file, or broken TOML; mistakes in the experiment wait for [`Draft::finish`].
    pub fn read(path: &Path, overrides: &[Override]) -> Result<Self> {
        let (file, stem, text) = read_text(path)?;
        Self::parse(&file, &stem, &text, overrides)
    }

    /// Like [`Draft::read`], from text; `stem` is the default of `name`.
    pub fn parse(file: &str, stem: &str, text: &str, overrides: &[Override]) -> Result<Self> {
        let file: Arc<str> = file.into();
        let root = tree::parse(&file, text).map_err(|mistakes| refusal(&file, mistakes))?;
        if Pipeline::is_one(&root) {
            return Err(Error::request(format!("{file} is a pipeline of stages, not one experiment")).with_hint(
                "`telos run` and `telos check` take it; a stage's own is experiment.toml in its run's folder",
            ));
        }
        Ok(Self::laid_over(&file, stem, root, overrides))
    }

    fn laid_over(file: &Arc<str>, stem: &str, mut root: Node, overrides: &[Override]) -> Self {
        let mut mistakes = Vec::new();
        for (index, over) in overrides.iter().enumerate() {
            if let Err(mistake) = overrides::lay_over(&mut root, index, over) {
                mistakes.push(mistake);
            }
        }
        Self::from_tree(file, stem, root, mistakes)
    }

    /// The draft of a whole tree, with the `mistakes` that were made on the way to it.
    fn from_tree(file: &Arc<str>, stem: &str, root: Node, mut mistakes: Vec<Mistake>) -> Self {
        let checked = form::check(&root);
        mistakes.extend(checked.mistakes);
        let mut notes = Notes { root: &root, mistakes };
        let experiment = match serde_json::from_value(serde_json::Value::Object(checked.values)) {
            Ok(written) => Some(resolve::resolve(written, stem, &mut notes)),
            Err(error) => {
                notes.refuse("", format!("cannot be read as an experiment: {error}"));
                None
            }
        };
        let mut mistakes = notes.mistakes;
        if let Some(experiment) = &experiment {
            mistakes.extend(needless(experiment, &checked.rewards));
        }
        let backend =
            checked.backend.unwrap_or_else(|| SpannedTable::new("backend", root.place.clone(), Vec::new(), "backend"));
        let uses = experiment
            .as_ref()
            .map_or_else(Vec::new, |experiment| uses(experiment, backend, checked.objectives, checked.rewards));
        Self { source: Source { file: file.clone(), root }, mistakes, experiment, uses }
    }

    /// The plugins to load. Those whose id is missing or ill-formed are left out; that is already a mistake.
    pub fn plugins(&self) -> &[PluginUse] {
        &self.uses
    }

    /// Where runs are kept, as far as that is known already.
    pub fn runs_dir(&self) -> PathBuf {
        self.experiment.as_ref().map_or_else(|| "runs".into(), |experiment| experiment.runs_dir.clone().into())
    }

    /// Who computes, its own options left out; none where the experiment cannot be read.
    pub fn backend(&self) -> Option<&experiment::Backend> {
        self.experiment.as_ref().map(|experiment| &experiment.backend)
    }

    /// Checks the options of the plugin in `slot` against its manifest's `specs`.
    pub fn check_options(&mut self, slot: Slot, specs: &[OptionSpec]) {
        let Some(use_) = self.uses.iter_mut().find(|use_| use_.slot == slot) else {
            return;
        };
        use_.checked = true;
        match (options::check_options(specs, &use_.options), &mut self.experiment) {
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

    /// Adds a mistake at `key` that only a later stage can know, such as a plugin that is not installed.
    pub fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let place = resolve::place_of(&self.source.root, key);
        self.mistakes.push(Mistake::new(place, key, message));
    }

    /// All mistakes so far, in the order of reporting.
    pub fn mistakes(&self) -> Vec<&Mistake> {
        let mut mistakes: Vec<&Mistake> = self.mistakes.iter().collect();
        mistakes.sort();
        mistakes
    }

    /// Options that nobody checked are refused, never ignored.
    fn refuse_unchecked(&mut self) {
        if self.mistakes.is_empty() {
            for use_ in self.uses.iter().filter(|use_| !use_.checked) {
                for name in use_.options.names() {
                    let key = form::join(use_.options.key(), name);
                    let place = resolve::place_of(&self.source.root, &key);
                    let message = format!("nobody checked this option of plugin \"{}\"", use_.id);
                    self.mistakes.push(Mistake::new(place, key, message));
                }
            }
        }
    }

    /// The experiment, or one error with every mistake.
    pub fn finish(mut self) -> Result<Loaded> {
        self.refuse_unchecked();
        match self.experiment {
            Some(experiment) if self.mistakes.is_empty() => Ok(Loaded { experiment, source: self.source }),
            _ => Err(refusal(&self.source.file, self.mistakes)),
        }
    }
}

impl PluginUse {
    /// The key that names the plugin: `backend.plugin`, `objective.1.plugin`.
    pub fn key(&self) -> String {
        form::join(self.options.key(), "plugin")
    }
}

impl Loaded {
    /// How the user wrote the table `index` of a list: `reward`, or `reward.0` and so on.
    pub fn key_of(&self, list: &str, index: usize) -> String {
        resolve::keys_of(list, &self.source.root, index + 1).pop().unwrap_or_default()
    }

    /// The error that `key` is wrong in a way seen only later, such as a file that does not exist.
    pub fn refuse(&self, key: &str, message: impl Into<String>) -> Error {
        let place = resolve::place_of(&self.source.root, key);
        refusal(&self.source.file, vec![Mistake::new(place, key, message)])
    }
}

/// Keys of rewards that are models: there is no plugin whose options they could be.
fn needless(experiment: &Experiment, rewards: &[SpannedTable]) -> Vec<Mistake> {
    let models = experiment.reward.iter().zip(rewards).filter_map(|(reward, table)| match reward.source {
        experiment::RewardSource::Model { .. } => options::check_options(&[], table).err(),
        experiment::RewardSource::Plugin { .. } => None,
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
        experiment::RewardSource::Plugin { plugin } => Some((Slot::Reward(index), plugin.clone(), options)),
        experiment::RewardSource::Model { .. } => None,
    });
    std::iter::once(backend)
        .chain(objectives)
        .chain(rewards)
        .filter(|(_, id, _)| !id.is_empty())
        .map(|(slot, id, options)| PluginUse { slot, id, options, checked: false })
        .collect()
}

/// Name, stem and content of an experiment's file.
fn read_text(path: &Path) -> Result<(String, String, String)> {
    let file = path.display().to_string();
    let mut bytes = Vec::new();
    let read = files::open(path).and_then(|file| file.take(LARGEST as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|cause| {
        Error::request(format!("cannot read the experiment {file}")).with_cause(cause).with_hint("check the path")
    })?;
    if bytes.len() > LARGEST {
        return Err(Error::request(format!(
            "{file} is larger than {LARGEST} bytes, the most that an experiment may have"
        ))
        .with_hint("name the experiment's TOML file; data goes into files of its own"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        Error::request(format!("{file} is no UTF-8 text: byte {valid} is invalid")).with_hint("save it as UTF-8")
    })?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((file, stem, text))
}

/// One error with every mistake, in the order of reporting.
fn refusal(file: &str, mut mistakes: Vec<Mistake>) -> Error {
    mistakes.sort();
    mistakes.dedup();
    let count = match mistakes.len() {
        1 => "1 mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    let rest = mistakes.len().saturating_sub(LISTED);
    Error::request(format!("{count} in {file}"))
        .with_details(mistakes.iter().take(LISTED).map(ToString::to_string))
        .with_details((rest > 0).then(|| format!("and {rest} more")))
        .with_hint("`telos run --help-keys` explains every key")
}
