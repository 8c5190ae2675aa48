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
    named::{Named, PendingModels, model_and_tokenizer},
};
use crate::{
    config::{Draft, Loaded, Override, Slot},
    error::{Error, Result, refusal_text},
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
pub fn prepare_draft(mut draft: Draft, folders: &[PathBuf], pinning: Pinning) -> Result<Setup> {
    let plugins = Plugins::load(&mut draft, folders, pinning)?;
    plugins.prepare(draft.finish()?, &PendingModels::new())
}

impl Plugins {
    /// Loads the plugins that `draft` names and checks their options; mistakes are added to the draft's.
    ///
    /// # Errors
    /// A plugin that changed or cannot be loaded.
    pub fn load(draft: &mut Draft, folders: &[PathBuf], pinning: Pinning) -> Result<Plugins> {
        let registry = Registry::discover(folders);
        let mut lock = Lock::open(&draft.runs_dir(), pinning)?;
        let (mut backend, mut objectives, mut rewards, mut plugins) = (None, Vec::new(), Vec::new(), Vec::new());
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
            let libraries::Loaded { library, sha256, libraries } = libraries::open(&info, &mut lock)?;
            let info = library.info().clone();
            breadcrumb::entering(&info.id, "manifest");
            let specs: Vec<OptionSpec>;
            match wanted.slot {
                Slot::Backend => {
                    let manifest = library.backend_manifest()?;
                    specs = manifest.options.clone();
                    backend = Some((library, manifest));
                }
                Slot::Objective(_) => {
                    let manifest = library.objective_manifest()?;
                    for why in contract::manifest(&manifest) {
                        draft.refuse(&wanted.key(), format!("objective \"{}\", call `manifest`: {why}", wanted.id));
                    }
                    specs = manifest.options.clone();
                    objectives.push((library, manifest));
                }
                Slot::Reward(_) => {
                    let manifest = library.reward_manifest()?;
                    specs = manifest.options.clone();
                    rewards.push(library);
                }
            }
            breadcrumb::left();
            draft.check_options(wanted.slot, &specs);
            plugins.push(PluginUse { libraries: Some(libraries), ..used(&info, sha256) });
        }
        Ok(Plugins { registry, lock, used: plugins, backend, objectives, rewards })
    }

    /// Reads the tokenizer and the model's shape, and checks them with the rest. A model in `awaited` has no folder yet: a
    /// model of that shape with fresh weights is used in its place.
    ///
    /// # Errors
    /// A request error.
    pub fn prepare(self, loaded: Loaded, awaited: &PendingModels) -> Result<Setup> {
        let Plugins { registry, lock, used: plugins, backend, objectives, rewards } = self;
        let backend = backend.ok_or_else(|| Error::request("the experiment names no backend"))?;
        let (model_folder, tokenizer, config) = model_and_tokenizer(&loaded, awaited)?;
        check_lengths(&loaded, &config)?;
        check_dtype(&loaded, &backend.1)?;
        let awaited = awaited.clone();
        Ok(Setup {
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
            awaited,
            named: Named::default(),
            accepts_fixed_rows: false,
            accept_unproved: false,
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
