//! From an experiment file to everything a run needs, in an order in which every refusal comes before the first file is
//! written: experiment, plugins, tokenizer, model shape, device, data.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use plugin_api::{
    backend::{DType, Session, SessionOptions},
    load::{Library, PluginInfo},
    manifest::{BackendManifest, ObjectiveManifest, OptionSpec, kind},
};

use super::objectives::{Active, Objectives};
use crate::{
    config::{
        Draft, Experiment, Loaded, Override, Slot,
        experiment::{Batch, Data, Dtype, Length, Model as ModelSource, Tokenizer as TokenizerSource},
    },
    data::{BatchSize, Batcher, BatcherOptions, Tokenizer, TrainingData},
    device::{
        Device,
        profile::{Profile, Record},
    },
    error::{Error, Result},
    model::{Model, ModelConfig, Outputs},
    plugins::{Lock, Registry},
    runs::{
        checkpoint::find::{self, Checkpoint},
        receipt::PluginUse,
    },
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
    awaited: Awaited,
}

/// A model that an experiment names.
pub struct NamedModel {
    /// Its folder; `None` where an earlier stage of a pipeline will leave it and has not been run. Fresh weights stand in.
    pub folder: Option<PathBuf>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its shape.
    pub config: ModelConfig,
}

/// Models that are not there yet, by the folder of the run that will leave them.
pub type Awaited = BTreeMap<PathBuf, Arc<NamedModel>>;

/// The model in `from`, if it is one of those.
fn awaited_model(awaited: &Awaited, from: &str) -> Option<Arc<NamedModel>> {
    awaited.iter().find(|(folder, _)| Path::new(from).starts_with(folder)).map(|(_, model)| model.clone())
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
pub fn prepare(file: &Path, overrides: &[Override], folders: &[PathBuf], update_lock: bool) -> Result<Prepared> {
    prepare_draft(Draft::read(file, overrides)?, folders, update_lock)
}

/// As [`prepare`], from an experiment that was read already.
///
/// # Errors
/// As there.
pub fn prepare_draft(mut draft: Draft, folders: &[PathBuf], update_lock: bool) -> Result<Prepared> {
    let plugins = Plugins::load(&mut draft, folders, update_lock)?;
    plugins.prepare(draft.finish()?, &Awaited::new())
}

impl Plugins {
    /// Loads the plugins that `draft` names and checks their options; what is wrong is added to the draft's mistakes.
    ///
    /// # Errors
    /// A plugin that changed or cannot be loaded.
    pub fn load(draft: &mut Draft, folders: &[PathBuf], update_lock: bool) -> Result<Plugins> {
        let registry = Registry::discover(folders);
        let mut lock = Lock::open(&draft.runs_dir(), update_lock)?;
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
            let sha256 = lock.verify(&info)?;
            let library = Library::load(&info).map_err(|e| Error::request(e.to_string()))?;
            let specs: Vec<OptionSpec>;
            match wanted.slot {
                Slot::Backend => {
                    let manifest = library.backend_manifest()?;
                    specs = manifest.options.clone();
                    backend = Some((library, manifest));
                }
                Slot::Objective(_) => {
                    let manifest = library.objective_manifest()?;
                    specs = manifest.options.clone();
                    objectives.push((library, manifest));
                }
                Slot::Reward(_) => {
                    let manifest = library.reward_manifest()?;
                    specs = manifest.options.clone();
                    rewards.push(library);
                }
            }
            draft.check_options(wanted.slot, &specs);
            plugins.push(used(&info, sha256));
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
    }
}

/// An error as one entry of the list of mistakes.
pub(crate) fn refusal_text(error: &Error) -> String {
    let hint = error.hint().map(|h| format!(" ({h})")).unwrap_or_default();
    let details = error.details().iter().map(|d| format!("; {d}")).collect::<String>();
    format!("{}{details}{hint}", error.message())
}

impl Prepared {
    /// The experiment.
    pub fn experiment(&self) -> &Experiment {
        &self.loaded.experiment
    }

    /// What is known of the model in `path` (a run, a checkpoint or a Hugging Face folder) without reading its weights.
    ///
    /// # Errors
    /// A request error where there is none.
    pub fn named_model(&self, path: &str) -> Result<Arc<NamedModel>> {
        if let Some(model) = awaited_model(&self.awaited, path) {
            return Ok(model);
        }
        let folder = model_folder(Path::new(path))?;
        let (tokenizer, config) = (Tokenizer::open(&folder)?, ModelConfig::from_folder(&folder)?);
        Ok(Arc::new(NamedModel { folder: Some(folder), tokenizer, config }))
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
        open(&self.backend.0, &self.session_options(1), dtype(self.experiment().backend.dtype), profile)
            .map_err(|e| self.loaded.refuse("backend.device", refusal_text(&e)))
    }

    /// Opens a bare session of the backend whose handles carry `tag`, for layers to be put around it.
    ///
    /// # Errors
    /// A request error for a device that is not there.
    pub fn session(&self, tag: u16) -> Result<Box<dyn Session>> {
        let session = self.backend.0.session(&self.session_options(tag));
        let session = session.map_err(|e| self.loaded.refuse("backend.device", e.to_string()))?;
        Ok(Box::new(session))
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
            let instance = library.objective(&own.options)?;
            let twice = wanted.iter().filter(|other| other.plugin == own.plugin).count() > 1;
            let prefix = match (several, twice) {
                (false, _) => String::new(),
                (true, false) => format!("{}/", own.plugin),
                (true, true) => format!("{}.{index}/", own.plugin),
            };
            all.push(Active::new(&own.plugin, own.weight, prefix, manifest.clone(), Box::new(instance), &kind)?);
        }
        let mut objectives = Objectives::new(all)?;
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
        let experiment = self.experiment();
        let batch = match experiment.train.batch {
            // The batcher hands out the prompts of a whole rollout.
            Batch::Prompts(n) => BatchSize::Sequences(experiment.rollout.as_ref().map_or(n, |rollout| rollout.prompts)),
            Batch::Sequences(n) | Batch::Pairs(n) => BatchSize::Sequences(n),
            Batch::Tokens(n) => BatchSize::Tokens(n),
        };
        let options = BatcherOptions { seed: experiment.seed, batch, prefix: self.tokenizer.prefix(), epochs: None };
        let steps = match experiment.train.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => {
                let once = BatcherOptions { epochs: Some(1), ..options.clone() };
                let context = experiment.longest_sequence(self.config.context as usize);
                let probe = Batcher::new(data.train.clone(), once)?;
                let windows = probe.windows_left(context)?.unwrap_or(1);
                let each = match (experiment.train.batch, &experiment.rollout) {
                    (Batch::Prompts(n), Some(rollout)) => (rollout.epochs * rollout.prompts.div_ceil(n.max(1))) as u64,
                    _ => 1,
                };
                ((windows as f64 * epochs).ceil() as u64).max(1) * each
            }
        };
        Ok((Batcher::new(data.train.clone(), options)?, steps))
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
    let session = library.session(options).map_err(|e| Error::request(e.to_string()))?;
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

/// The folder with the weights of a run, a checkpoint or a Hugging Face model.
///
/// # Errors
/// A request error where there is no such folder or no model in it, and for a run whose newest checkpoint is damaged.
pub fn model_folder(path: &Path) -> Result<PathBuf> {
    if let Some(checkpoint) = pointed_at(path)? {
        return Ok(checkpoint);
    }
    if !path.is_dir() {
        return Err(Error::request(format!("there is no model folder {}", path.display())).with_hint("check the path"));
    }
    if path.join("config.json").is_file() {
        return Ok(path.to_owned());
    }
    let checkpoints = if path.join("checkpoints").is_dir() { path.join("checkpoints") } else { path.to_owned() };
    if let Some(checkpoint) = find::latest(&checkpoints)? {
        return as_named(path, checkpoint);
    }
    Err(Error::request(format!(
        "{} is neither a model folder (it has no config.json) nor a run with a checkpoint",
        path.display()
    ))
    .with_hint("name a run, a checkpoint or a Hugging Face folder"))
}

/// `checkpoints/LATEST` and `checkpoints/BEST`, in any case, name the checkpoint that the file of that name points at.
fn pointed_at(path: &Path) -> Result<Option<PathBuf>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    let Some(folder) = path.parent().filter(|_| !path.is_dir()) else { return Ok(None) };
    let checkpoint = match name.as_str() {
        find::LATEST => find::latest(folder)?,
        find::BEST => find::best(folder)?,
        _ => None,
    };
    checkpoint.map(|found| as_named(path, found)).transpose()
}

/// The checkpoint that was named, and no other: results of an earlier one would pass for its own.
fn as_named(path: &Path, found: Checkpoint) -> Result<PathBuf> {
    let Some(why) = found.note else { return Ok(found.path) };
    let message = format!("the checkpoint that {} names cannot be used", path.display());
    let hint = format!("the newest whole one is {}; name it to use it", found.path.display());
    Err(Error::request(message).with_details([why]).with_hint(hint))
}

fn model_and_tokenizer(loaded: &Loaded, awaited: &Awaited) -> Result<(Option<PathBuf>, Tokenizer, ModelConfig)> {
    let experiment = &loaded.experiment;
    let awaited = match &experiment.model {
        ModelSource::From { from } => awaited_model(awaited, from),
        ModelSource::Shape(_) => None,
    };
    let folder = match &experiment.model {
        ModelSource::From { .. } if awaited.is_some() => None,
        ModelSource::From { from } => {
            Some(model_folder(Path::new(from)).map_err(|e| loaded.refuse("model.from", refusal_text(&e)))?)
        }
        ModelSource::Shape(_) => None,
    };
    let tokenizer = match (&experiment.tokenizer, &folder) {
        (TokenizerSource::Bytes, _) => Tokenizer::bytes()?,
        (TokenizerSource::File { path }, _) => Tokenizer::open(Path::new(path))?,
        (TokenizerSource::Model, None) if let Some(model) = &awaited => model.tokenizer.clone(),
        (TokenizerSource::Model, Some(folder)) => Tokenizer::open(folder)?,
        (TokenizerSource::Model, None) => {
            return Err(
                loaded.refuse("tokenizer.kind", "\"model\" needs model.from; with fresh weights choose bytes or file")
            );
        }
    };
    let config = match (&experiment.model, &folder) {
        (ModelSource::Shape(shape), _) => {
            let mut config = ModelConfig::from_shape(shape, shape.vocab.unwrap_or(tokenizer.vocab_size()))?;
            config.bos = tokenizer.bos();
            config.eos = tokenizer.eos().into_iter().collect();
            config
        }
        (ModelSource::From { .. }, Some(folder)) => ModelConfig::from_folder(folder)?,
        (ModelSource::From { .. }, None) => match awaited {
            Some(model) => model.config.clone(),
            None => return Err(Error::run("model.from without a folder")),
        },
    };
    if tokenizer.vocab_size() as u64 > config.vocab {
        let (key, remedy) = match &experiment.model {
            ModelSource::From { .. } => ("tokenizer", "use the model's own tokenizer"),
            ModelSource::Shape(_) => ("model.vocab", "raise model.vocab, or leave it out"),
        };
        return Err(loaded.refuse(
            key,
            format!(
                "{} has {} tokens, the model's vocabulary {}; {remedy}",
                tokenizer.name(),
                tokenizer.vocab_size(),
                config.vocab
            ),
        ));
    }
    Ok((folder, tokenizer, config))
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
