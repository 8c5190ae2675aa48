//! Loads an experiment's plugins and checks everything that can be checked without data.

use std::path::{Path, PathBuf};

use plugin_api::{
    contract,
    manifest::{BackendManifest, ObjectiveManifest, OptionSpec, kind},
};
use plugin_api_load::{Library, PluginInfo};

use super::{
    Setup,
    checks::{check_dtype, check_lengths},
    data::kinds,
    named::{AdapterStart, Named, PendingModels, model_and_tokenizer},
};
use crate::{
    config::{
        Draft, Loaded, Mistakes, Override, Slot,
        experiment::{Reward, RewardSource},
    },
    error::{Error, Result, refusal_text},
    model::open::Bases,
    plugins::{Lock, Pinning, Registry, libraries},
    runs::{breadcrumb, receipt::PluginUse},
};

/// An experiment's plugins, loaded.
pub struct Plugins {
    registry: Registry,
    lock: Lock,
    used: Vec<PluginUse>,
    backend: Option<(Library, BackendManifest)>,
    objectives: Vec<(Library, ObjectiveManifest)>,
    rewards: Vec<Library>,
    /// Plugins that could not be loaded, by the keys that name them.
    failed: Vec<(String, Error)>,
}

/// Reads the experiment, loads its plugins, and checks everything that can be checked without data.
///
/// # Errors
/// Request errors; each stage reports all its mistakes at once.
pub fn prepare(file: &Path, overrides: &[Override], folders: &[PathBuf], pinning: Pinning) -> Result<Setup> {
    prepare_draft(Draft::read(file, overrides)?, folders, pinning)
}

/// As [`prepare`], for an experiment that was read already.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_draft(draft: Draft, folders: &[PathBuf], pinning: Pinning) -> Result<Setup> {
    let mut setup = open_draft(draft, folders, pinning)?;
    setup.mistakes.finish()?;
    Ok(setup)
}

/// As [`prepare_draft`], but the setup may have mistakes, which are reported with those that are found in data and models.
///
/// # Errors
/// One request error with every mistake if too little can be prepared; failures that are not mistakes.
pub fn open_draft(mut draft: Draft, folders: &[PathBuf], pinning: Pinning) -> Result<Setup> {
    let plugins = Plugins::load(&mut draft, folders, pinning)?;
    let (loaded, mistakes) = draft.open()?;
    plugins.open(loaded, mistakes, &PendingModels::new())
}

impl Plugins {
    /// Loads the plugins that `draft` names and checks their options; mistakes are added to the draft's.
    ///
    /// # Errors
    /// A lock that cannot be read; a plugin whose manifest cannot be read.
    pub fn load(draft: &mut Draft, folders: &[PathBuf], pinning: Pinning) -> Result<Plugins> {
        let registry = Registry::discover(folders);
        let runs_dir = draft.runs_dir();
        if let Some(file) = runs_dir.ancestors().find(|place| place.exists()).filter(|place| !place.is_dir()) {
            let what = format!("runs_dir: {} is a file, and the folder of runs is expected there", file.display());
            return Err(Error::request(what).with_hint("set runs_dir to a folder; it is created if it does not exist"));
        }
        let mut lock = Lock::open(&runs_dir, pinning)?;
        let (mut backend, mut objectives, mut rewards, mut plugins) = (None, Vec::new(), Vec::new(), Vec::new());
        let mut failed = Vec::new();
        for wanted in draft.plugins().to_vec() {
            let kind = match wanted.slot {
                Slot::Backend => kind::BACKEND,
                Slot::Objective(_) => kind::OBJECTIVE,
                Slot::Reward(_) => kind::REWARD,
            };
            let info = match registry.find(kind, &wanted.id) {
                Ok(info) => info.clone(),
                Err(error) => {
                    draft.refuse(&wanted.key(), refusal_text(&error));
                    continue;
                }
            };
            let libraries::Loaded { library, sha256, libraries } = match libraries::open(&info, &mut lock) {
                Ok(loaded) => loaded,
                Err(error) => {
                    draft.leave_unchecked(wanted.slot);
                    failed.push((wanted.key(), error));
                    continue;
                }
            };
            let info = library.info().clone();
            breadcrumb::entering(&info.id, "manifest");
            let (specs, wrong): (Vec<OptionSpec>, Vec<String>);
            match wanted.slot {
                Slot::Backend => {
                    let manifest = library.backend_manifest()?;
                    wrong = contract::option_names(&manifest.options, contract::BACKEND_KEYS);
                    specs = manifest.options.clone();
                    backend = Some((library, manifest));
                }
                Slot::Objective(_) => {
                    let manifest = library.objective_manifest()?;
                    wrong = contract::manifest(&manifest);
                    specs = manifest.options.clone();
                    objectives.push((library, manifest));
                }
                Slot::Reward(_) => {
                    let manifest = library.reward_manifest()?;
                    let names = contract::option_names(&manifest.options, contract::REWARD_KEYS);
                    wrong = [names, contract::reward_parts(&manifest)].concat();
                    specs = manifest.options.clone();
                    rewards.push(library);
                }
            }
            breadcrumb::left();
            for why in wrong {
                draft.refuse(&wanted.key(), format!("{kind} \"{}\", call `manifest`: {why}", wanted.id));
            }
            draft.check_options(wanted.slot, &specs);
            plugins.push(PluginUse { libraries: Some(libraries), ..used(&info, sha256) });
        }
        Ok(Plugins { registry, lock, used: plugins, backend, objectives, rewards, failed })
    }

    /// Refuses plugins that could not be loaded or are not the pinned ones.
    ///
    /// # Errors
    /// One error with all of them.
    pub fn check_loaded(&mut self, loaded: &Loaded) -> Result<()> {
        let mut mistakes = loaded.mistakes();
        for (key, error) in std::mem::take(&mut self.failed) {
            mistakes.check(&key, Err::<(), _>(error))?;
        }
        mistakes.finish()
    }

    /// Reads the tokenizer and the model's shape, and checks them with the rest. A model in `pending` has no folder yet: a
    /// model of that shape with fresh weights is used in its place.
    ///
    /// # Errors
    /// A request error.
    pub fn prepare(self, loaded: Loaded, pending: &PendingModels) -> Result<Setup> {
        let mistakes = loaded.mistakes();
        let mut setup = self.open(loaded, mistakes, pending)?;
        setup.mistakes.finish()?;
        Ok(setup)
    }

    fn open(self, loaded: Loaded, mut mistakes: Mistakes, pending: &PendingModels) -> Result<Setup> {
        let Plugins { registry, lock, used: plugins, backend, objectives, rewards, failed } = self;
        for (key, error) in failed {
            mistakes.check(&key, Err::<(), _>(error))?;
        }
        let model = match mistakes.are_free(&["model", "tokenizer"]) {
            true => mistakes.check("model", model_and_tokenizer(&loaded, pending))?,
            false => None,
        };
        if let Some((_, _, config)) = &model {
            check_lengths(&loaded, config, &mut mistakes);
        }
        if let Some((_, manifest)) = backend.as_ref().filter(|_| mistakes.are_free(&["backend.dtype"])) {
            mistakes.check("backend.dtype", check_dtype(&loaded, manifest))?;
        }
        let of_plugins = |reward: &&Reward| matches!(reward.source, RewardSource::Plugin { .. });
        let experiment = &loaded.experiment;
        let all = objectives.len() == experiment.objective.len()
            && rewards.len() == experiment.reward.iter().filter(of_plugins).count();
        let (Some(backend), Some((model_folder, tokenizer, mut config)), true) = (backend, model, all) else {
            kinds::check_files(&loaded, &objectives, &mut mistakes)?;
            mistakes.finish()?;
            return Err(Error::request("the experiment names no backend"));
        };
        let pending = pending.clone();
        let adapter = match mistakes.are_free(&["model"]) {
            true => {
                let start = AdapterStart::of(&loaded, model_folder.as_deref(), &mut config, &pending);
                mistakes.check("model.adapter", start)?
            }
            false => None,
        };
        Ok(Setup {
            adapter: adapter.flatten(),
            bases: Bases::default(),
            loaded,
            registry,
            lock,
            plugins,
            tokenizer,
            config,
            model_folder,
            backend,
            objectives,
            rewards,
            mistakes,
            pending,
            named: Named::default(),
            accepts_fixed_rows: false,
            accept_unproved: false,
            pause_after: None,
            compared_by: Vec::new(),
        })
    }
}

/// Returns a plugin's entry for the receipt.
pub fn used(info: &PluginInfo, sha256: String) -> PluginUse {
    PluginUse {
        id: info.id.clone(),
        kind: info.kind.clone(),
        version: info.version.clone(),
        abi: format!("{}.{}", info.abi_major, info.abi_minor),
        file: info.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256,
        libraries: None,
    }
}
