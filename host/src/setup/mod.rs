//! From an experiment file to everything a run needs: experiment, plugins, tokenizer, model shape, device, data. In this order
//! every refusal comes before the first file is written.

mod adapter;
mod backend;
mod batches;
mod checks;
mod data;
pub mod loading;
mod models;
pub mod named;
mod objective_columns;
mod objectives;
mod reward_columns;
mod roles;

use std::path::PathBuf;

use plugin_api::manifest::{BackendManifest, ObjectiveManifest};
use plugin_api_load::Library;

use crate::{
    config::{Experiment, Loaded, Mistakes},
    data::Tokenizer,
    model::{ModelConfig, open::Bases},
    plugins::{Lock, Registry},
    runs::receipt::PluginUse,
};
use named::{AdapterStart, Named, PendingModels};

/// A checked experiment with its plugins loaded, its tokenizer read and its model's shape known.
pub struct Setup {
    /// The experiment.
    pub loaded: Loaded,
    /// The folders searched for plugins, and the plugins found.
    pub registry: Registry,
    /// The pinned plugins; saved once all other checks have passed.
    pub lock: Lock,
    /// Plugins for the receipt, the backend first.
    pub plugins: Vec<PluginUse>,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The model's shape.
    pub config: ModelConfig,
    /// The folder of the weights; `None`: fresh weights.
    pub model_folder: Option<PathBuf>,
    /// How the adapter begins that is trained in place of the weights; `None`: the weights are trained.
    pub adapter: Option<AdapterStart>,
    /// Frozen weights that several models share.
    pub(crate) bases: Bases,
    backend: (Library, BackendManifest),
    pub(crate) objectives: Vec<(Library, ObjectiveManifest)>,
    /// The experiment's reward plugins, in order.
    pub(crate) rewards: Vec<Library>,
    /// The mistakes found so far. If there are any, what depends on them is a placeholder: only [`loading::open_draft`] leaves
    /// any.
    pub(crate) mistakes: Mistakes,
    pub(crate) pending: PendingModels,
    pub(crate) named: Named,
    /// Whether a run may be resumed with changed data files: rows were fixed, but none was added or removed.
    pub accepts_fixed_rows: bool,
    /// Whether to train with objectives that contradict the quick laws.
    pub accept_unproved: bool,
    /// The step after which the run saves and ends, to be resumed later; `None`: it trains to its end.
    pub pause_after: Option<u64>,
    /// Metrics by which a study compares its runs, each with the key of `[sweep]` that names it: a run that reports none of that name
    /// is refused.
    pub compared_by: Vec<(String, String)>,
}

impl Setup {
    /// The experiment.
    pub fn experiment(&self) -> &Experiment {
        &self.loaded.experiment
    }

    /// Takes the mistakes found so far, for the checks that follow.
    pub(crate) fn take_mistakes(&mut self) -> Mistakes {
        std::mem::replace(&mut self.mistakes, self.loaded.mistakes())
    }

    /// The backend's manifest.
    pub fn backend_manifest(&self) -> &BackendManifest {
        &self.backend.1
    }
}
