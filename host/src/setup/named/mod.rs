//! Models that an experiment names: their folders, tokenizers and shapes, and placeholders for models that an earlier stage of
//! a pipeline will produce.

mod pending;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

pub(in crate::setup) use pending::pending_model;
pub use pending::{NamedModel, PendingAdapter, PendingModels};

use crate::{
    config::{
        Loaded,
        experiment::{Model as ModelSource, Tokenizer as TokenizerSource},
    },
    data::{DataError, Source, Tokenizer, foreign, gguf, hub},
    error::{Error, Result, refusal_text},
    files,
    model::files::hash::same_weights,
    model::{
        ModelConfig,
        adapter::{
            Settings,
            config::{ADAPTER_CONFIG, AdapterConfig, base_of, is_adapter, is_base_of, other_base},
            files::settings_of,
        },
    },
    runs::checkpoint::find::{self, Checkpoint, MERGED},
    runs::folder::CHECKPOINTS,
};

/// Models that have been read, by their names in the experiment.
pub(crate) type Named = Mutex<BTreeMap<String, Arc<NamedModel>>>;

/// Checks that `loaded` was read from the same files as `checked`.
///
/// # Errors
/// A request error that names a file that changed in between.
pub(crate) fn check_unchanged(folder: &Path, checked: &ModelConfig, loaded: &ModelConfig) -> Result<()> {
    let changed = |(a, b): &(&Source, &Source)| a != b;
    let mut both = checked.files.iter().zip(&loaded.files);
    let name = match both.find(changed) {
        Some((file, _)) => file.path.as_path(),
        None if checked.files.len() == loaded.files.len() => return Ok(()),
        None => Path::new("a file"),
    };
    let message = format!("{}: {} changed while the run was starting", folder.display(), name.display());
    Err(Error::request(message).with_hint("start the run again once nothing writes there"))
}

/// Returns the folder with the weights of a run, a checkpoint or a Hugging Face model, or the GGUF file that holds a model.
///
/// # Errors
/// A request error if the folder does not exist or contains no model, and for a run whose newest checkpoint is damaged.
pub fn model_folder(path: &Path) -> Result<PathBuf> {
    if let Some(found) = hub::model(path)? {
        return Ok(found);
    }
    if let Some(checkpoint) = pointed_at(path)? {
        return Ok(checkpoint);
    }
    if let Some(file) = gguf::at(path)? {
        return Ok(file);
    }
    if path.is_file() {
        return Err(foreign::file_for_a_folder(path).into());
    }
    if !path.is_dir() {
        return Err(match foreign::missing(path) {
            DataError::Missing(_) => Error::request(format!("there is no model folder {}", path.display()))
                .with_hint("check the path; a model of the Hugging Face hub is named hf:org/name"),
            hub => hub.into(),
        });
    }
    find::verify_named(path)?;
    if !files::is_missing(&path.join("config.json")) || !files::is_missing(&path.join(ADAPTER_CONFIG)) {
        return Ok(path.to_owned());
    }
    let checkpoints = if path.join(CHECKPOINTS).is_dir() { path.join(CHECKPOINTS) } else { path.to_owned() };
    if let Some(checkpoint) = find::latest(&checkpoints)? {
        return as_named(path, checkpoint);
    }
    if let Some(stages) = find::stages(path) {
        let place = path.display();
        return Err(Error::request(format!(
            "{place} holds the runs of a pipeline's stages, each with a model of its own"
        ))
        .with_hint(format!("name a stage: {}", stages.join(" or "))));
    }
    let (other, remedy) = match foreign::other_weights(path) {
        Some((other, remedy)) => (format!("; {other}"), remedy),
        None => (String::new(), "name a run, a checkpoint, a Hugging Face folder or a GGUF file".to_owned()),
    };
    let place = path.display();
    Err(Error::request(format!(
        "{place} is neither a model folder (it has no config.json) nor a run with a checkpoint{other}"
    ))
    .with_hint(remedy))
}

/// Resolves `checkpoints/LATEST` and `checkpoints/BEST`, in upper or lower case, to the checkpoint that the file of that name
/// points to, and `LATEST/merged` and `BEST/merged` to the merged model in it.
fn pointed_at(path: &Path) -> Result<Option<PathBuf>> {
    let pointer = path.parent().filter(|_| path.ends_with(MERGED) && !path.is_dir());
    if let Some(checkpoint) = pointer.map(pointed_at).transpose()?.flatten() {
        let merged = checkpoint.join(MERGED);
        return match merged.is_dir() {
            true => Ok(Some(merged)),
            false => Err(Error::request(format!("{} has no folder {MERGED}", checkpoint.display()))
                .with_hint("set checkpoint.merged = true in the run that trains the adapter")),
        };
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    let Some(folder) = path.parent().filter(|_| !path.is_dir()) else { return Ok(None) };
    let checkpoint = match name.as_str() {
        find::LATEST => find::latest(folder)?,
        find::BEST => find::best(folder)?,
        _ => None,
    };
    checkpoint.map(|found| as_named(path, found)).transpose()
}

/// Returns the named checkpoint, never an earlier one: its results would be mistaken for those of the named one.
fn as_named(path: &Path, found: Checkpoint) -> Result<PathBuf> {
    let Some(why) = found.note else { return Ok(found.path) };
    let message = format!("the checkpoint that {} names cannot be used", path.display());
    let hint = format!("the newest complete one is {}; name it to use it", found.path.display());
    Err(Error::request(message).with_details([why]).with_hint(hint))
}

/// Returns the folder with the tokenizer of the model in `folder`: an adapter without a tokenizer has that of its base.
///
/// # Errors
/// A request error for an adapter whose base does not exist.
pub fn tokenizer_folder(folder: &Path) -> Result<PathBuf> {
    match is_adapter(folder) && !has_tokenizer(folder) {
        true => base_of(folder),
        false => Ok(folder.to_owned()),
    }
}

pub(super) fn has_tokenizer(folder: &Path) -> bool {
    ["tokenizer.json", "tokenizer_config.json"].iter().any(|name| !files::is_missing(&folder.join(name)))
}

/// Returns the model of an earlier stage whose adapter the experiment continues from.
fn pending_adapter(loaded: &Loaded, pending: &PendingModels) -> Option<Arc<NamedModel>> {
    match &loaded.experiment.model {
        ModelSource::From { adapter: Some(path), .. } => pending_model(pending, path),
        _ => None,
    }
}

/// Returns the folder of the adapter that the experiment continues from; `None` if there is none or it does not exist yet.
fn adapter_folder(loaded: &Loaded) -> Result<Option<PathBuf>> {
    let ModelSource::From { adapter: Some(path), .. } = &loaded.experiment.model else { return Ok(None) };
    // A name of the hub, too, is that of an adapter that exists.
    match hub::is_named(path) || Path::new(path).exists() || pointed_at(Path::new(path))?.is_some() {
        true => model_folder(Path::new(path)).map(Some).map_err(|e| loaded.refuse("model.adapter", refusal_text(&e))),
        false => Ok(None),
    }
}

/// Opens the tokenizer in a file or folder, which may be that of a checkpoint.
fn tokenizer_at(path: &Path) -> Result<Tokenizer> {
    if let Some(folder) = hub::tokenizer(path)? {
        return Ok(Tokenizer::open(&folder)?);
    }
    if gguf::at(path)?.is_none() {
        find::verify_tokenizer(if path.is_dir() { path } else { path.parent().unwrap_or(path) })?;
    }
    Ok(Tokenizer::open(path)?)
}

/// Returns folder, tokenizer and shape of the model that the experiment begins with; no folder if the weights are fresh, or if
/// the model does not exist yet.
///
/// # Errors
/// A request error if there is no such model, or if its tokenizer does not fit.
pub(crate) fn model_and_tokenizer(
    loaded: &Loaded,
    all_pending: &PendingModels,
) -> Result<(Option<PathBuf>, Tokenizer, ModelConfig)> {
    let experiment = &loaded.experiment;
    let pending = match &experiment.model {
        ModelSource::From { from, .. } => pending_model(all_pending, from),
        ModelSource::Shape(_) => None,
    };
    let folder = match &experiment.model {
        ModelSource::From { .. } if pending.is_some() => None,
        ModelSource::From { from, .. } => {
            Some(model_folder(Path::new(from)).map_err(|e| loaded.refuse("model.from", refusal_text(&e)))?)
        }
        ModelSource::Shape(_) => None,
    };
    let is_an_adapter = match (&folder, &pending) {
        (Some(folder), _) => is_adapter(folder),
        (None, pending) => pending.as_ref().is_some_and(|model| model.adapter.is_some()),
    };
    if is_an_adapter {
        let why = "it is an adapter: name its base in model.from and the adapter in model.adapter; or set checkpoint.merged = true in its \
                   run, and name the merged model: checkpoints/LATEST/merged of the run, in a pipeline stage:NAME/merged";
        return Err(loaded.refuse("model.from", why));
    }
    let adapter = adapter_folder(loaded)?;
    let mut tokenizer = match (&experiment.tokenizer, &folder) {
        (TokenizerSource::Bytes, _) => Tokenizer::bytes()?,
        (TokenizerSource::File { path }, _) => {
            tokenizer_at(Path::new(path)).map_err(|e| loaded.refuse("tokenizer.path", refusal_text(&e)))?
        }
        (TokenizerSource::Model, None) if let Some(model) = &pending => model.tokenizer.clone(),
        (TokenizerSource::Model, _) if let Some(model) = pending_adapter(loaded, all_pending) => {
            model.tokenizer.clone()
        }
        (TokenizerSource::Model, _) if let Some(folder) = adapter.as_deref().filter(|folder| has_tokenizer(folder)) => {
            Tokenizer::open(folder)?
        }
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
        (ModelSource::From { .. }, None) => match pending {
            Some(model) => model.config.clone(),
            None => return Err(Error::run("model.from without a folder")),
        },
    };
    let is_the_models = matches!(experiment.tokenizer, TokenizerSource::Model);
    let is_of_the_model = match experiment.model {
        // Added tokens beyond the model's vocabulary are refused only if a text contains them, as in transformers.
        ModelSource::From { .. } => is_the_models || !tokenizer.has_words_beyond(config.vocab),
        ModelSource::Shape(_) => false,
    };
    if tokenizer.vocab_size() as u64 > config.vocab && !is_of_the_model {
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
    tokenizer.fit_to_model(&config.eos, config.vocab)?;
    Ok((folder, tokenizer, config))
}

/// How the adapter of a run begins.
pub enum AdapterStart {
    /// Fresh, with these settings.
    Fresh(Settings),
    /// As the one in this folder.
    Folder(PathBuf),
}

impl AdapterStart {
    /// Returns how the adapter of the experiment begins, over the weights in `base` with the config `config`, which becomes that of the
    /// adapted model; `None` if the run trains all weights. An adapter that an earlier stage of a pipeline will produce begins fresh.
    ///
    /// # Errors
    /// A request error if there is no such adapter, or if it belongs to other weights.
    pub(super) fn of(
        loaded: &Loaded,
        base: Option<&Path>,
        config: &mut ModelConfig,
        pending: &PendingModels,
    ) -> Result<Option<AdapterStart>> {
        let ModelSource::From { from, adapter, lora, .. } = &loaded.experiment.model else { return Ok(None) };
        let Some(path) = adapter else { return Ok(lora.as_ref().map(|lora| AdapterStart::Fresh(lora.settings()))) };
        let refuse = |why: String| loaded.refuse("model.adapter", why);
        let none = || {
            refuse(format!(
                "{path} has no adapter; name a run with model.lora, a folder that PEFT has written, or an adapter of the hub"
            ))
        };
        if let Some(model) = pending_model(pending, path) {
            let adapter = model.adapter.clone().ok_or_else(none)?;
            if !adapter.is_over(from, base, pending).map_err(|e| refuse(refusal_text(&e)))? {
                return Err(refuse(format!(
                    "the adapter of {path} is trained on {}, and model.from is {from}: name its own base in model.from",
                    adapter.base
                )));
            }
            *config = config.with_adapter(model.config.clone());
            return Ok(Some(AdapterStart::Fresh(adapter.settings)));
        }
        let folder = model_folder(Path::new(path)).map_err(|e| refuse(refusal_text(&e)))?;
        if !is_adapter(&folder) {
            return Err(none());
        }
        let own = AdapterConfig::read(&folder).map_err(|e| refuse(refusal_text(&e)))?;
        let note = match base {
            Some(base) => compared(&own, &folder, base, &refuse)?,
            None => None,
        };
        let adapted = ModelConfig::of_adapter(&folder, config).map_err(|e| refuse(refusal_text(&e)))?;
        *config = config.with_adapter(adapted);
        config.notes.extend(note);
        Ok(Some(AdapterStart::Folder(folder)))
    }

    /// Its settings, over weights with the config `base`.
    ///
    /// # Errors
    /// A request error for an adapter that cannot be read.
    pub fn settings(&self, base: &ModelConfig) -> Result<Settings> {
        match self {
            AdapterStart::Fresh(settings) => Ok(settings.clone()),
            AdapterStart::Folder(folder) => settings_of(folder, base),
        }
    }
}

/// Compares the weights that an adapter was trained over with those in `base`; returns a note if it cannot.
fn compared(
    adapter: &AdapterConfig,
    folder: &Path,
    base: &Path,
    refuse: &dyn Fn(String) -> Error,
) -> Result<Option<String>> {
    let (name, used) = (&adapter.base.name, hub::shown(base));
    match is_base_of(folder, base).map_err(|e| refuse(refusal_text(&e)))? {
        Some(true) => return Ok(None),
        Some(false) => {
            let own = if name.is_empty() { String::new() } else { format!(", {name}") };
            let what = other_base(folder, base);
            return Err(refuse(format!(
                "{what}; name its own base{own} in model.from, or restore them if they were replaced"
            )));
        }
        None => {}
    }
    // Refuses a run in the place of a model.
    let own = adapter.base.local(folder).map(|_| adapter.base.folder(folder)).transpose();
    match own.map_err(|e| refuse(refusal_text(&e)))? {
        Some(own) if same_weights(&own, base)? => Ok(None),
        Some(own) => Err(refuse(format!(
            "{} was trained on {}, whose weights differ from those of model.from, {used}; name its own base in model.from",
            folder.display(),
            own.display()
        ))),
        None if adapter.base.is_on_hub_as(base) => Ok(None),
        None => {
            let trained = match name.as_str() {
                "" => "does not name the model that it was trained on".to_owned(),
                name => {
                    let revision = adapter.base.revision.as_ref().map(|revision| format!("@{revision}"));
                    let revision = revision.unwrap_or_default();
                    format!("was trained on {name}{revision}, and there is no such folder or GGUF file to compare")
                }
            };
            Ok(Some(format!(
                "model.adapter: {} {trained}: the weights of model.from, {used}, are used; whether they are the same is not known",
                folder.display()
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Draft;
    use crate::runs::folder::PIPELINE_FILE;

    /// Catches the folder of a pipeline that is refused without naming its stages.
    #[test]
    fn the_folder_of_a_pipeline_names_its_stages() {
        let folder = tempfile::tempdir().unwrap();
        let hint = || model_folder(folder.path()).unwrap_err().hint().unwrap_or_default().to_owned();
        assert!(hint().starts_with("name a run"), "{}", hint());
        for stage in ["sft", "ppo"] {
            std::fs::create_dir_all(folder.path().join(stage).join("checkpoints")).unwrap();
        }
        std::fs::create_dir(folder.path().join("other")).unwrap();
        assert!(hint().starts_with("name a run"), "a folder of runs is no pipeline: {}", hint());
        std::fs::write(folder.path().join(PIPELINE_FILE), "").unwrap();
        let stage = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(hint(), format!("name a stage: {} or {}", stage("ppo"), stage("sft")));
    }

    /// Catches an adapter of the hub that is taken for one that does not exist yet: the tokenizer in its folder would not be read.
    #[test]
    fn an_adapter_of_the_hub_exists() {
        let folder = |adapter: &str| {
            let text = format!(
                "[model]\nfrom = \"base\"\nadapter = \"{adapter}\"\n[data]\npath = \"a\"\n[objective]\nplugin = \"ce\"\n\
                 [train]\nsteps = 1\nbatch = {{ tokens = 8 }}\noptimizer = {{ lr = 1e-3 }}\n"
            );
            let mut draft = Draft::parse("exp.toml", "exp", &text, &[]).unwrap();
            let slots: Vec<_> = draft.plugins().iter().map(|plugin| plugin.slot).collect();
            slots.into_iter().for_each(|slot| draft.check_options(slot, &[]));
            adapter_folder(&draft.finish().unwrap())
        };
        assert_eq!(folder("no/such/run").unwrap(), None);
        // A name that is not valid is refused before the network is used.
        let report = folder("hf:lora").unwrap_err().report();
        assert!(report.contains("model.adapter: hf:lora: is not the name of a repository"), "{report}");
    }

    /// Catches a note that says where a base is not, which was not searched for in the hub's cache, and one without its revision.
    #[test]
    fn a_base_that_is_not_compared_is_said_to_be_so() {
        let note = |revision: &str| {
            let text = format!(
                r#"{{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"],
                "base_model_name_or_path": "no-such-org/name", "revision": {revision}}}"#
            );
            let adapter = AdapterConfig::parse(&text, "adapter_config.json").unwrap();
            compared(&adapter, Path::new("peft"), Path::new("base"), &Error::request).unwrap().unwrap()
        };
        let expected = "model.adapter: peft was trained on no-such-org/name@abc, and there is no such folder or GGUF file to compare: \
                        the weights of model.from, base, are used; whether they are the same is not known";
        assert_eq!(note("\"abc\""), expected);
        assert_eq!(note("null"), expected.replace("@abc", ""));
    }
}
