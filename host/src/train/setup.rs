//! From an experiment file to everything a run needs, in an order in which every refusal comes before the first file is
//! written: experiment, plugins, tokenizer, model shape, device, data.

use std::{
    error::Error as _,
    path::{Path, PathBuf},
};

use plugin_api::{
    backend::{DType, Session, SessionOptions},
    contract,
    manifest::{BackendManifest, DeviceSpec, ObjectiveManifest, OptionSpec, kind},
};
use plugin_api_load::{Library, PluginInfo};

use super::{
    named::{Awaited, Named, check_unchanged, model_and_tokenizer},
    objectives::{Active, Objectives},
};
use crate::{
    config::{
        Draft, Experiment, Loaded, Override, Slot,
        experiment::{Batch, Data, Dtype, Length},
    },
    data::{BatchSize, Batcher, BatcherOptions, Tokenizer, TrainingData},
    device::{
        Device,
        profile::{Profile, Record},
    },
    error::{Error, Result},
    model::{Model, ModelConfig, Outputs},
    plugins::{Lock, Pinning, Registry, libraries},
    runs::{breadcrumb, receipt::PluginUse},
};

/// A checked experiment with its plugins loaded, its tokenizer read and its model's shape known.
pub struct Prepared {
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
    pub(super) objectives: Vec<(Library, ObjectiveManifest)>,
    /// Those of the experiment's rewards that are plugins, in order.
    pub(super) rewards: Vec<Library>,
    pub(super) awaited: Awaited,
    pub(super) named: Named,
    /// Whether a resumed run goes on over data files that were changed: rows that were fixed, none added and none removed.
    pub accepts_fixed_rows: bool,
    /// Whether objectives that contradict the quick laws are trained all the same.
    pub accept_unproved: bool,
}

/// An experiment's plugins, loaded.
pub struct Plugins {
    registry: Registry,
    lock: Lock,
    used: Vec<PluginUse>,
    backend: Option<(Library, BackendManifest)>,
    objectives: Vec<(Library, ObjectiveManifest)>,
    rewards: Vec<Library>,
}

/// Reads the experiment, loads its plugins, and checks all that can be checked without data.
///
/// # Errors
/// Request errors, all of a stage at once.
pub fn prepare(file: &Path, overrides: &[Override], folders: &[PathBuf], pinning: Pinning) -> Result<Prepared> {
    prepare_draft(Draft::read(file, overrides)?, folders, pinning)
}

/// As [`prepare`], from an experiment that was read already.
///
/// # Errors
/// As there.
pub fn prepare_draft(mut draft: Draft, folders: &[PathBuf], pinning: Pinning) -> Result<Prepared> {
    let plugins = Plugins::load(&mut draft, folders, pinning)?;
    plugins.prepare(draft.finish()?, &Awaited::new())
}

impl Plugins {
    /// Loads the plugins that `draft` names and checks their options; what is wrong is added to the draft's mistakes.
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

    /// Reads the tokenizer and the model's shape, and checks them with the rest. A model in `awaited` has no folder yet:
    /// one of that shape with fresh weights stands in.
    ///
    /// # Errors
    /// A request error.
    pub fn prepare(self, loaded: Loaded, awaited: &Awaited) -> Result<Prepared> {
        let Plugins { registry, lock, used: plugins, backend, objectives, rewards } = self;
        let backend = backend.ok_or_else(|| Error::request("the experiment names no backend"))?;
        let (model_folder, tokenizer, config) = model_and_tokenizer(&loaded, awaited)?;
        check_lengths(&loaded, &config)?;
        check_dtype(&loaded, &backend.1)?;
        let awaited = awaited.clone();
        Ok(Prepared {
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

/// A plugin as a receipt names it.
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

/// An error as one entry of the list of mistakes.
pub(crate) fn refusal_text(error: &Error) -> String {
    let hint = error.hint().map(|h| format!(" ({h})")).unwrap_or_default();
    let details = error.details().iter().map(|d| format!("; {d}")).collect::<String>();
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{}{cause}{details}{hint}", error.message())
}

impl Prepared {
    /// The experiment.
    pub fn experiment(&self) -> &Experiment {
        &self.loaded.experiment
    }

    /// What the backend says of itself.
    pub fn backend_manifest(&self) -> &BackendManifest {
        &self.backend.1
    }

    /// Opens the backend's session; with `profile`, every operation is timed.
    ///
    /// # Errors
    /// A request error for a device that is not there.
    pub fn device(&self, profile: bool) -> Result<(Device, Option<Record>)> {
        let before = libraries::mapped();
        let opened = open(&self.backend.0, &self.session_options(1), dtype(self.experiment().backend.dtype), profile);
        libraries::note_mapped(self.backend.0.info(), &before, &libraries::mapped());
        opened.map_err(|e| self.loaded.refuse("backend.device", refusal_text(&e)))
    }

    /// Opens a bare session of the backend whose handles carry `tag`, for layers to be put around it.
    ///
    /// # Errors
    /// A request error for a device that is not there.
    pub fn session(&self, tag: u16) -> Result<Box<dyn Session>> {
        let options = self.session_options(tag);
        let session = breadcrumb::within(&self.backend.0.info().id, "session", || self.backend.0.session(&options));
        let session = session.map_err(|e| self.loaded.refuse("backend.device", e.to_string()))?;
        Ok(Box::new(session))
    }

    /// Pins what the backend opened with its session.
    ///
    /// # Errors
    /// A request error where a library changed.
    pub fn pin_opened(&mut self) -> Result<()> {
        let Some(used) = self.plugins.first_mut() else { return Ok(()) };
        let known = used.libraries.get_or_insert_default();
        libraries::add_opened(self.backend.0.info(), &mut self.lock, known)
    }

    /// The instruction set that the backend computes with, as it names it; none where it has no choice.
    pub fn instruction_set(&self) -> Option<String> {
        let chosen = self.experiment().backend.options.get("isa").and_then(|isa| isa.as_str());
        let own = chosen.filter(|isa| *isa != "auto").or(self.device_spec().map(|own| own.instruction_set.as_str()));
        own.filter(|isa| !isa.is_empty()).map(str::to_owned)
    }

    /// Whether another number of threads may give other bits: the backend does not promise the same.
    pub fn threads_matter(&self) -> bool {
        !self.device_spec().is_some_and(|device| device.same_with_any_threads)
    }

    /// What the backend says of the experiment's device.
    fn device_spec(&self) -> Option<&DeviceSpec> {
        let name = self.experiment().backend.device.split(':').next().unwrap_or_default();
        self.backend.1.devices.iter().find(|device| device.name == name)
    }

    fn session_options(&self, tag: u16) -> SessionOptions {
        let wanted = &self.experiment().backend;
        let threads = threads(wanted.threads);
        SessionOptions { device: wanted.device.clone(), threads, tag, options: wanted.options.clone() }
    }

    /// The model with these outputs: loaded from `checkpoint` where given, else from the experiment's folder, else fresh. The value
    /// head that a language model was trained with is no part of the model that begins from it alone.
    ///
    /// # Errors
    /// A request error naming file and tensor.
    pub fn model(&self, device: &Device, checkpoint: Option<&Path>, outputs: Outputs) -> Result<Model> {
        self.check_start(outputs)?;
        let mut model = match checkpoint.or(self.model_folder.as_deref()) {
            Some(folder) => Model::from_folder_as(device, folder, outputs)?,
            None => Model::init(device, ModelConfig { outputs, ..self.config.clone() }, self.experiment().seed)?,
        };
        if let (None, Some(folder)) = (checkpoint, &self.model_folder) {
            check_unchanged(folder, &self.config, model.config())?;
        }
        if checkpoint.is_none() && !outputs.tokens && self.config.outputs.tokens {
            model.reset_scalar()?;
        }
        model.stop_at(self.tokenizer.eos());
        Ok(model)
    }

    /// Whether a model with these outputs can begin where the experiment says.
    ///
    /// # Errors
    /// A request error for a language model that is to begin from a model which is none.
    pub fn check_start(&self, outputs: Outputs) -> Result<()> {
        if !outputs.tokens || self.config.outputs.tokens {
            return Ok(());
        }
        let why =
            "a reward model or critic: it has no language-model head; name the language model that it was trained from";
        Err(self.loaded.refuse("model.from", why))
    }

    /// The objectives, created.
    ///
    /// # Errors
    /// The plugins' own; a request error for what this host does not offer.
    pub fn objectives(&self) -> Result<Objectives> {
        let wanted = &self.experiment().objective;
        let several = wanted.len() > 1;
        let kind = self.data_kind();
        let mut all = Vec::with_capacity(wanted.len());
        for (index, ((library, manifest), own)) in self.objectives.iter().zip(wanted).enumerate() {
            if self.stands_beside(index, manifest) {
                continue;
            }
            let instance = breadcrumb::within(&own.plugin, "create", || library.objective(&own.options))?;
            let twice = wanted.iter().filter(|other| other.plugin == own.plugin).count() > 1;
            let prefix = match (several, twice) {
                (false, _) => String::new(),
                (true, false) => format!("{}/", own.plugin),
                (true, true) => format!("{}.{index}/", own.plugin),
            };
            let active = Active::new(&own.plugin, own.weight, prefix, manifest.clone(), Box::new(instance), &kind)?;
            all.push(active.of_table(index));
        }
        let mut objectives = Objectives::new(all)?;
        objectives.limit(self.config.vocab, self.config.context as usize);
        if let Some(rollout) = &self.experiment().rollout {
            objectives.answer_at(rollout.temperature);
        }
        Ok(objectives)
    }

    /// The data order of the run, and how many optimizer steps it is.
    ///
    /// # Errors
    /// A request error for an impossible batch.
    pub fn batcher(&self, data: &TrainingData) -> Result<(Batcher, u64)> {
        self.check_window(data)?;
        let experiment = self.experiment();
        let batch = match experiment.train.batch {
            // The batcher hands out the prompts of a whole rollout.
            Batch::Prompts(n) => BatchSize::Sequences(experiment.rollout.as_ref().map_or(n, |rollout| rollout.prompts)),
            Batch::Sequences(n) | Batch::Pairs(n) => BatchSize::Sequences(n),
            Batch::Tokens(n) => BatchSize::Tokens(n),
        };
        let epochs = match experiment.train.length {
            Length::Steps(_) => None,
            Length::Epochs(epochs) => Some(epochs.ceil().max(1.0) as u64),
        };
        let options = BatcherOptions { seed: experiment.seed, batch, prefix: self.tokenizer.prefix(), epochs };
        let batcher = Batcher::new(data.train.clone(), options)?;
        let steps = match experiment.train.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => {
                let steps_of = |prompts: usize| match (experiment.train.batch, &experiment.rollout) {
                    (Batch::Prompts(n), Some(rollout)) => (rollout.epochs * prompts.div_ceil(n.max(1))) as u64,
                    _ => 1,
                };
                let context = experiment.longest_sequence(self.config.context as usize);
                batcher.windows_of(epochs, context)?.into_iter().map(steps_of).sum()
            }
        };
        Ok((batcher, steps))
    }
}

/// Opens a session of `library`.
///
/// # Errors
/// A request error for a device that is not there.
pub fn open(
    library: &Library,
    options: &SessionOptions,
    compute: DType,
    profile: bool,
) -> Result<(Device, Option<Record>)> {
    let session = breadcrumb::within(&library.info().id, "session", || library.session(options));
    let session = session.map_err(|e| Error::request(e.to_string()))?;
    if !profile {
        return Ok((Device::new(Box::new(session), compute)?, None));
    }
    let (session, record) = Profile::wrap(Box::new(session));
    Ok((Device::new(session, compute)?, Some(record)))
}

/// The dtype of the contract.
pub fn dtype(wanted: Dtype) -> DType {
    match wanted {
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::BF16,
        Dtype::F64 => DType::F64,
    }
}

/// The number of threads; 0 means all cores.
pub fn threads(wanted: usize) -> usize {
    if wanted > 0 { wanted } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

fn check_lengths(loaded: &Loaded, config: &ModelConfig) -> Result<()> {
    if let Data::Jsonl { max_length: Some(max_length), .. } = loaded.experiment.data
        && max_length as u64 > config.context
    {
        let why = format!("{max_length} tokens are longer than the model's context of {}", config.context);
        return Err(loaded.refuse("data.max_length", why));
    }
    let longest = loaded.experiment.longest_sequence(config.context as usize);
    if longest as u64 > config.context {
        return Err(loaded.refuse(
            "train.context_schedule",
            format!("{longest} tokens are longer than the model's context of {}", config.context),
        ));
    }
    Ok(())
}

fn check_dtype(loaded: &Loaded, backend: &BackendManifest) -> Result<()> {
    let wanted = dtype(loaded.experiment.backend.dtype).to_string();
    if backend.dtypes.contains(&wanted) {
        return Ok(());
    }
    Err(loaded.refuse(
        "backend.dtype",
        format!("backend \"{}\" computes in {}, not in {wanted}", backend.id, backend.dtypes.join(", ")),
    ))
}
