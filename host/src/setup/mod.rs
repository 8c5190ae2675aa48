//! From an experiment file to everything a run needs, in an order in which every refusal comes before the first file is
//! written: experiment, plugins, tokenizer, model shape, device, data.

mod backend;
mod batches;
mod checks;
mod data;
pub mod loading;
mod models;
pub mod named;
mod objectives;
mod reward_columns;
mod roles;

use std::path::PathBuf;

use plugin_api::manifest::{BackendManifest, ObjectiveManifest};
use plugin_api_load::Library;

use crate::{
    config::{Experiment, Loaded},
    data::Tokenizer,
    model::ModelConfig,
    plugins::{Lock, Registry},
    runs::receipt::PluginUse,
};
use named::{Named, PendingModels};

/// A checked experiment with its plugins loaded, its tokenizer read and its model's shape known.
pub struct Setup {
    /// The experiment.
    pub loaded: Loaded,
    /// Where plugins were looked for and what was found.
    pub registry: Registry,
    /// The pinned plugins; saved once everything else is in order.
    pub lock: Lock,
    /// Plugins for the receipt, the backend first.
    pub plugins: Vec<PluginUse>,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The model's shape.
    pub config: ModelConfig,
    /// The folder the weights come from; `None`: fresh ones.
    pub model_folder: Option<PathBuf>,
    backend: (Library, BackendManifest),
    pub(crate) objectives: Vec<(Library, ObjectiveManifest)>,
    /// Those of the experiment's rewards that are plugins, in order.
    pub(crate) rewards: Vec<Library>,
    pub(crate) awaited: PendingModels,
    pub(crate) named: Named,
    /// Whether a resumed run goes on over data files that were changed: rows that were fixed, none added and none removed.
    pub accepts_fixed_rows: bool,
    /// Whether objectives that contradict the quick laws are trained all the same.
    pub accept_unproved: bool,
}

impl Setup {
    /// The experiment.
    pub fn experiment(&self) -> &Experiment {
        &self.loaded.experiment
    }

    /// What the backend says of itself.
    pub fn backend_manifest(&self) -> &BackendManifest {
        &self.backend.1
    }
}
